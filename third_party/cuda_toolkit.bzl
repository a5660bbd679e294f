"""@cuda: the headers and the static runtime of the toolkit that nvcc on the PATH belongs to."""

_ALL_ARCHITECTURES = ["80", "89", "90a", "100"]

_BUILD = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    hdrs = glob(["include/*.h", "include/*.hpp", "include/crt/*"]),
    # Vendor's headers: as a system's, without our warnings.
    includes = ["include"],
)

cc_library(
    name = "runtime",
    srcs = ["lib/libcudart_static.a"],
    linkopts = ["-ldl", "-lrt", "-lpthread"],
    deps = [":headers"],
)
"""

def _root_of(ctx, nvcc):
    """The toolkit's folder, through whatever links nvcc was found."""
    answer = ctx.execute(["sh", "-c", 'dirname "$(dirname "$(readlink -f "$0")")"', str(nvcc)])
    return answer.stdout.strip()

def _static_runtime(ctx, root):
    for folder in ["lib64", "lib", "targets/x86_64-linux/lib"]:
        path = ctx.path("%s/%s/libcudart_static.a" % (root, folder))
        if path.exists:
            return path
    return fail("@cuda: %s has no libcudart_static.a; install the toolkit's static runtime or take nvcc off the PATH" % root)

def _cuda_toolkit_impl(ctx):
    nvcc = ctx.which("nvcc")
    wanted = ctx.os.environ.get("MUSTER_CUDA_ARCHS", "90a")
    architectures = _ALL_ARCHITECTURES if wanted == "all" else wanted.split(" ")
    if "90" in architectures:
        fail("MUSTER_CUDA_ARCHS: kernels for compute capability 9.0 are made of what only sm_90a has: write 90a for 90")
    ctx.file("toolkit.bzl", "NVCC = %r\nARCHITECTURES = %r\n" % (str(nvcc) if nvcc else "", architectures))
    if not nvcc:
        ctx.file("BUILD.bazel", "")
        return
    root = _root_of(ctx, nvcc)
    ctx.symlink(root + "/include", "include")
    ctx.symlink(_static_runtime(ctx, root), "lib/libcudart_static.a")
    ctx.file("BUILD.bazel", _BUILD)

_cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    environ = ["PATH", "MUSTER_CUDA_ARCHS"],
    configure = True,
)

def cuda_repository():
    """Nothing is fetched. MUSTER_CUDA_ARCHS: architectures apart by spaces, or "all"; default 90a."""
    _cuda_toolkit(name = "cuda")
