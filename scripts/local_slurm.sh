#!/usr/bin/env bash
# A real one-node Slurm on loopback, to try hydra/launcher=submitit_slurm without a cluster.
#
#   eval "$(scripts/local_slurm.sh up)"   # starts it, and sets SLURM_CONF in this shell
#   scripts/local_slurm.sh down           # cancels the jobs and ends it
#
# Needs root and Debian's slurmctld, slurmd, slurm-client and munge. State and logs: LOCAL_SLURM, by default /tmp/local_slurm.
set -euo pipefail
DIR=${LOCAL_SLURM:-/tmp/local_slurm}
export SLURM_CONF=$DIR/slurm.conf

need() {
    for tool in munged slurmctld slurmd sbatch; do
        command -v "$tool" > /dev/null || { echo "error: $tool is not installed; apt-get install slurmctld slurmd slurm-client munge" >&2; exit 2; }
    done
    [ "$(id -u)" = 0 ] || { echo "error: the daemons need root; run it with sudo, or in a container" >&2; exit 2; }
}

up() {
    need
    [ ! -e "$DIR" ] || { echo "error: $DIR exists; run $0 down first" >&2; exit 2; }
    mkdir -m 755 "$DIR"
    mkdir -m 700 "$DIR/munge"
    mkdir "$DIR/state" "$DIR/spool"
    head -c 1024 /dev/urandom > "$DIR/munge/key"
    chmod 600 "$DIR/munge/key"
    local host memory
    host=$(hostname -s)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    cat > "$SLURM_CONF" << END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge.socket
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    munged --force --key-file "$DIR/munge/key" --socket "$DIR/munge.socket" --pid-file "$DIR/munged.pid" \
        --log-file "$DIR/munge/log" --seed-file "$DIR/munge/seed" >&2
    slurmctld -c >&2
    slurmd >&2
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --format %t 2> /dev/null)" = idle ]; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    echo "error: the node did not come up in 30 s; see $DIR/*.log" >&2
    exit 1
}

down() {
    [ -e "$DIR" ] || return 0
    [ -e "$DIR/slurm.conf" ] || { echo "error: $DIR holds no slurm.conf: not a folder of this script" >&2; exit 2; }
    scancel --user=root 2> /dev/null || true
    for daemon in slurmd slurmctld munged; do # munged last: the others talk through it
        [ ! -e "$DIR/$daemon.pid" ] || kill "$(cat "$DIR/$daemon.pid")" 2> /dev/null || true
    done
    rm -rf "$DIR"
}

case "${1:-}" in
    up) up ;;
    down) down ;;
    *) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
