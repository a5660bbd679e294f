"""The CUDA toolkit, where there is one: nvcc on the PATH. Without it the targets made by these rules do not exist."""

load("@cuda//:toolkit.bzl", "ARCHITECTURES", "NVCC")
load("//third_party:muster.bzl", "muster_cc_binary", "muster_cc_library")

_NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "--expt-relaxed-constexpr",
    "--compress-mode=size",
    "-Xcompiler=-fPIC,-Wall,-Wno-unused-parameter",
    "-Werror=all-warnings",
] + ["-gencode=arch=compute_%s,code=sm_%s" % (a, a) for a in ARCHITECTURES]

# For C++ that asks what there are kernels for: architectures, apart by commas.
CUDA_DEFINES = ['MUSTER_CUDA_ARCHITECTURES=\\"%s\\"' % ",".join(ARCHITECTURES)]

def if_cuda(labels, otherwise = []):
    """`labels` where there is a CUDA toolkit."""
    return labels if NVCC else otherwise

def _cuda_archive_impl(ctx):
    headers = depset(ctx.files.hdrs, transitive = [
        dep[CcInfo].compilation_context.headers
        for dep in ctx.attr.deps
        if CcInfo in dep
    ])
    objects = []
    for source in ctx.files.srcs:
        object = ctx.actions.declare_file("_objs/%s/%s.o" % (ctx.label.name, source.basename))
        ctx.actions.run_shell(
            command = 'exec "%s" "$@"' % NVCC,
            arguments = _NVCC_FLAGS + ["-I.", "-I" + ctx.bin_dir.path, "-c", source.path, "-o", object.path],
            inputs = depset([source], transitive = [headers]),
            outputs = [object],
            use_default_shell_env = True,
            mnemonic = "Nvcc",
            progress_message = "Compiling %s for sm_%s" % (source.short_path, ", sm_".join(ARCHITECTURES)),
        )
        objects.append(object)
    archive = ctx.actions.declare_file("lib%s.a" % ctx.label.name)
    ctx.actions.run_shell(
        command = 'rm -f "$1"; exec ar rcsD "$@"',
        arguments = [archive.path] + [object.path for object in objects],
        inputs = objects,
        outputs = [archive],
        mnemonic = "CudaArchive",
    )
    return [DefaultInfo(files = depset([archive]))]

_cuda_archive = rule(
    implementation = _cuda_archive_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(),
    },
)

def muster_cuda_library(name, srcs, hdrs = [], private_hdrs = [], deps = [], **kwargs):
    """Kernels: .cu files by nvcc, linked with the static CUDA runtime.

    Args:
      name: of the library.
      srcs: .cu files.
      hdrs: what others include.
      private_hdrs: what only `srcs` include (.cuh).
      deps: libraries whose headers `srcs` include.
      **kwargs: as of cc_library.
    """
    if not NVCC:
        return
    _cuda_archive(name = name + "_kernels", srcs = srcs, hdrs = hdrs + private_hdrs, deps = deps)
    muster_cc_library(
        name = name,
        srcs = [":" + name + "_kernels"],
        hdrs = hdrs,
        deps = deps + ["@cuda//:runtime"],
        **kwargs
    )

def muster_cuda_cc_library(name, deps = [], **kwargs):
    """A muster_cc_library of C++ that calls the CUDA runtime."""
    if NVCC:
        muster_cc_library(name = name, deps = deps + ["@cuda//:runtime"], **kwargs)

def muster_cuda_cc_binary(name, deps = [], tags = [], **kwargs):
    """A program for a machine with a GPU: built here, run by the suite under tests/gpu."""
    if NVCC:
        muster_cc_binary(name = name, deps = deps + ["@cuda//:runtime"], tags = tags + ["gpu"], testonly = True, **kwargs)

def muster_cuda_test(name, deps = [], **kwargs):
    """A GoogleTest program for a machine with a GPU; see muster_cuda_cc_binary."""
    muster_cuda_cc_binary(name = name, deps = deps + ["@googletest//:gtest_main"], **kwargs)
