"""The rules that Muster's own packages use: C++ with one set of flags, and Protocol Buffers."""

_COPTS = [
    "-std=c++20",
    "-Wall",
    "-Wextra",
    "-Werror",
    # Debian's Abseil and gRPC headers have unused parameters inside their own inline functions.
    "-Wno-unused-parameter",
    # g++ 12 warns of fields that C++20 designated initialisers leave at their defaults, which is their purpose.
    "-Wno-missing-field-initializers",
]

# Under ThreadSanitizer every program learns what the distribution's libraries do.
_PROGRAM_DEPS = select({
    "//third_party/thread_sanitizer:enabled": [
        "//third_party/thread_sanitizer:absl_synchronization",
        "//third_party/thread_sanitizer:suppressions",
    ],
    "//conditions:default": [],
})

def muster_cc_library(name, copts = [], **kwargs):
    """A cc_library with Muster's flags, always archived, never a shared object."""
    native.cc_library(name = name, copts = _COPTS + copts, linkstatic = True, **kwargs)

def muster_cc_binary(name, copts = [], deps = [], **kwargs):
    """A cc_binary with Muster's flags; what it needs at run time is decided in third_party."""
    native.cc_binary(
        name = name,
        copts = _COPTS + copts,
        linkstatic = True,
        deps = deps + _PROGRAM_DEPS,
        **kwargs
    )

def muster_cc_test(name, copts = [], deps = [], size = "small", **kwargs):
    """A GoogleTest binary with main() of its own accord. Tags: "asan", "tsan" also run it under those sanitizers."""
    native.cc_test(
        name = name,
        copts = _COPTS + copts,
        linkstatic = True,
        size = size,
        deps = deps + ["@googletest//:gtest_main"] + _PROGRAM_DEPS,
        **kwargs
    )

_ProtoFiles = provider(fields = {"files": "depset of .proto files, imports included"})

def _generated_name(source, package, suffix):
    path = source.short_path[len(package) + 1:] if package else source.short_path
    return path[:-len(".proto")] + suffix

def _generated_proto_impl(ctx):
    suffixes = [".pb.h", ".pb.cc"] + ([".grpc.pb.h", ".grpc.pb.cc"] if ctx.attr.grpc else [])
    outputs = [
        ctx.actions.declare_file(_generated_name(source, ctx.label.package, suffix))
        for source in ctx.files.srcs
        for suffix in suffixes
    ]
    files = depset(ctx.files.srcs, transitive = [dep[_ProtoFiles].files for dep in ctx.attr.deps])
    plugin = '--plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" --grpc_out="$out"' if ctx.attr.grpc else ""
    ctx.actions.run_shell(
        command = 'out="$1"; shift; exec protoc --proto_path=. --cpp_out="$out" %s "$@"' % plugin,
        arguments = [ctx.bin_dir.path] + [source.path for source in ctx.files.srcs],
        inputs = files,
        outputs = outputs,
        use_default_shell_env = True,
        mnemonic = "Protoc",
        progress_message = "Generating C++ from %s" % ctx.label,
    )
    return [
        DefaultInfo(files = depset(outputs)),
        OutputGroupInfo(
            headers = depset([output for output in outputs if output.basename.endswith(".h")]),
            sources = depset([output for output in outputs if output.basename.endswith(".cc")]),
        ),
        _ProtoFiles(files = files),
    ]

_generated_proto = rule(
    implementation = _generated_proto_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"], mandatory = True),
        "deps": attr.label_list(providers = [_ProtoFiles]),
        "grpc": attr.bool(),
    },
)

def muster_proto_library(name, srcs, deps = [], grpc = False, visibility = None):
    """A C++ library of the messages (and, with grpc, the services) of `srcs`.

    Args:
      name: of the library.
      srcs: .proto files of this package or of folders below it. They import each other by their path in the
        workspace, and so does C++: "proto/muster/v1/types.proto" becomes "proto/muster/v1/types.pb.h".
      deps: other muster_proto_library targets that `srcs` import. google/protobuf/*.proto need none.
      grpc: also generate and link the services.
      visibility: as everywhere.
    """
    generated = name + "_generated"
    _generated_proto(
        name = generated,
        srcs = srcs,
        deps = [_generated_label(dep) for dep in deps],
        grpc = grpc,
        visibility = visibility,
    )
    for group in ["headers", "sources"]:
        native.filegroup(name = name + "_" + group, srcs = [":" + generated], output_group = group)
    native.cc_library(
        name = name,
        srcs = [":" + name + "_sources"],
        hdrs = [":" + name + "_headers"],
        copts = ["-std=c++20", "-w"],
        linkstatic = True,
        deps = deps + (["@grpc//:grpc++"] if grpc else ["@protobuf"]),
        visibility = visibility,
    )

def _generated_label(label):
    if ":" in label:
        return label + "_generated"
    return label + ":" + label.split("/")[-1] + "_generated"
