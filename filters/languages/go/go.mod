module filter

go 1.25

require go.bytecodealliance.org/pkg v0.2.3

// The run time of the bindings lies beside them, so that a build needs no network.
replace go.bytecodealliance.org/pkg => ./bindings/pkg
