"""A repository whose C++ targets are libraries of this machine, found by asking pkg-config."""

# Part of the C library or of the compiler: always linked as shared libraries.
_SYSTEM_LIBRARIES = ["-lc", "-lm", "-ldl", "-lrt", "-lpthread", "-pthread", "-lstdc++"]

def _ask(ctx, arguments):
    pkg_config = ctx.which("pkg-config")
    if not pkg_config:
        fail("pkg-config is missing; `./muster build` installs it (Debian: apt-get install pkg-config)")
    answer = ctx.execute([pkg_config] + arguments)
    if answer.return_code != 0:
        fail("@%s: the development package %s is missing; `./muster build` installs it\n%s" %
             (ctx.name, ctx.attr.debian_package, answer.stderr))
    return [word for word in answer.stdout.replace("\n", " ").split(" ") if word]

def _archived(ctx, libraries):
    """Those of the -l flags that the linker can find as a static archive."""
    compiler = ctx.which("g++") or ctx.which("c++")
    if not compiler:
        fail("no C++ compiler found; `./muster build` installs g++")
    script = 'for l in "$@"; do case "$("$0" -print-file-name=lib${l#-l}.a)" in /*) echo "$l";; esac; done'
    return ctx.execute(["sh", "-c", script, str(compiler)] + libraries).stdout.split("\n")

def _link_flags(ctx, words):
    libraries = []
    system = []
    for word in words:
        known = system if word in _SYSTEM_LIBRARIES else libraries
        if (word.startswith("-l") or word == "-pthread" or word.startswith("-L")) and word not in known:
            known.append(word)
    if not ctx.attr.static:
        return libraries + system
    archived = _archived(ctx, libraries)
    static = [library for library in libraries if library in archived]
    shared = [library for library in libraries if library not in archived]
    group = ["-Wl,-Bstatic", "-Wl,--start-group"] + static + ["-Wl,--end-group", "-Wl,-Bdynamic"]
    return (group if static else []) + shared + system

def _include_folders(ctx, target, words):
    """Folders outside the compiler's own search path appear inside the repository, where Bazel lets them be."""
    folders = []
    for word in words:
        if word.startswith("-I") and word[2:] not in ["/usr/include", "/usr/local/include"]:
            folder = "include/%s/%d" % (target, len(folders))
            ctx.symlink(word[2:], folder)
            folders.append(folder)
    return folders

def _target(ctx, name, packages, linking):
    static = ["--static"] if linking == "static" else []
    compile = _ask(ctx, ["--cflags"] + packages) if packages else []
    link = _ask(ctx, static + ["--libs"] + packages) if packages and linking != "none" else []
    folders = _include_folders(ctx, name, compile)
    defines = ctx.attr.defines if ctx.attr.defines else [word[2:] for word in compile if word.startswith("-D")]
    return _CC_LIBRARY.format(
        name = repr(name),
        hdrs = repr([folder + "/**" for folder in folders]),
        includes = repr(folders),
        defines = repr(defines),
        linkopts = repr(_link_flags(ctx, ctx.attr.libraries.get(name, []) + link)),
        deps = repr(ctx.attr.target_deps.get(name, [])),
    )

_CC_LIBRARY = """
cc_library(
    name = {name},
    hdrs = glob({hdrs}),
    includes = {includes},
    defines = {defines},
    linkopts = {linkopts},
    deps = {deps},
)
"""

def _pkg_config_repository(ctx):
    build = 'package(default_visibility = ["//visibility:public"])\n'
    linking = "none" if ctx.attr.header_only else ("static" if ctx.attr.static else "shared")
    for name, packages in ctx.attr.targets.items():
        build += _target(ctx, name, packages, linking)
    ctx.file("BUILD.bazel", build)

pkg_config_repository = repository_rule(
    implementation = _pkg_config_repository,
    environ = ["PKG_CONFIG_PATH", "PATH"],
    doc = "Makes one cc_library per entry of `targets`.",
    attrs = {
        "debian_package": attr.string(mandatory = True, doc = "What to install when pkg-config does not know it."),
        "targets": attr.string_list_dict(mandatory = True, doc = "Target name to pkg-config packages (may be none)."),
        "libraries": attr.string_list_dict(doc = "Target name to -l flags that no pkg-config file names."),
        "target_deps": attr.string_list_dict(doc = "Target name to labels that it needs."),
        "defines": attr.string_list(doc = "Instead of the macros that pkg-config names."),
        "static": attr.bool(doc = "Link archives where they exist, as one group."),
        "header_only": attr.bool(doc = "Link nothing."),
    },
)
