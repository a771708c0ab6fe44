"""A GPU that is pretended: tensors that say cuda:0 and hold a CPU tensor.

It follows CUDA's rules on mixing devices and counts what costs time there: launches of kernels, and
the places where the host waits for the device.  It is blind to CUDA's arithmetic, the inside of its
kernels, its memory and its nondeterminism: what passes here may still fail on a GPU, but what fails
here fails there.

    python -m tests.tools.pretend.run samplers log_variance     one kind of cases, and which of them

`guard.cpp`, compiled by `build`, is what a CPU-only torch lacks for tensors that call themselves
CUDA; `device` has the tensors, the rules and the counts; `cases` what is run on them.
"""
