"""A GPU that is pretended: tensors that say cuda:0 and hold a CPU tensor.

It follows CUDA's rules on mixing devices and counts what costs time there: launches of kernels, and
the places where the host waits for the device.  It is blind to CUDA's arithmetic, the inside of its
kernels, its memory and its nondeterminism: what passes here may still fail on a GPU, but what fails
here fails there.

    python -m pytest -p tests.tools.pretend.device tests/device/test_samplers.py -k log_variance

`guard.cpp`, compiled by `build`, is what a CPU-only torch lacks for tensors that call themselves
CUDA; `device` has the tensors, the rules and the counts; `measure` runs iterations of a sampler.
"""
