"""Floor 1: curvature. Operators say what a Hessian times a vector is; estimators take any operator."""
