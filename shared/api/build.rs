//! Compiles `proto/` with a pure Rust compiler, so that no `protoc` is needed.

use std::path::{Path, PathBuf};

/// The packages whose requests come from clients and are checked for unknown fields.
const PUBLIC: &[&str] = &[
    "windlass.run.v1",
    "windlass.pipeline.v1",
    "windlass.log.v1",
    "windlass.secret.v1",
    "windlass.cluster.v1",
    "windlass.schedule.v1",
    "windlass.server.v1",
];

/// Messages that carry secret values: their `Debug` is written by hand and shows none (I8).
const REDACTED: &[&str] = &[
    "windlass.secret.v1.PutSecretRequest",
    "windlass.dispatch.v1.SecretPut",
    "windlass.dispatch.v1.RunSecretMake",
    "windlass.run.v1.SubmitRunRequest",
    "windlass.run.v1.RetryRunRequest",
    "windlass.schedule.v1.CreateScheduleRequest",
    "windlass.schedule.v1.UpdateScheduleRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    // Two passes: requests of the public packages go through the strict codec, internal protocols tolerate what they do not know.
    let (mut public, mut internal) = (descriptors.clone(), descriptors);
    public.file.retain(|file| !is_internal(file.package()));
    internal
        .file
        .retain(|file| is_internal(file.package()) || !has_services(file));
    compile(public, out.join("public"), "crate::strict::StrictCodec", true)?;
    compile(internal, out.join("internal"), "tonic_prost::ProstCodec", false)?;
    Ok(())
}

fn compile(
    descriptors: prost_types::FileDescriptorSet,
    out: PathBuf,
    codec: &str,
    public: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(&out)?;
    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names().btree_map(["."]).bytes([
        "windlass.feed.v1.FeedLine.content",
        "windlass.relay.v1.ReadBlocks.data",
        "windlass.journal.v1.RunChanges.changes",
        "windlass.log.v1.Line.content",
        "windlass.dispatch.v1.AttemptKey.run_id",
        "windlass.dispatch.v1.Launch.overlay_json",
        "windlass.dispatch.v1.StepTemplate.template_json",
    ]);
    prost.skip_debug(REDACTED);
    // Without the transport helpers, whose `connect` would clash with the RPC of that name: clients are made from a channel.
    let mut builder = tonic_prost_build::configure()
        .build_transport(false)
        .codec_path(codec)
        .out_dir(out);
    if !public {
        builder = builder
            .extern_path(".windlass.run.v1", "crate::run::v1")
            .extern_path(".windlass.pipeline.v1", "crate::pipeline::v1")
            .extern_path(".windlass.secret.v1", "crate::secret::v1")
            .extern_path(".windlass.cluster.v1", "crate::cluster::v1");
    }
    builder.compile_fds_with_config(descriptors, prost)?;
    Ok(())
}

fn is_internal(package: &str) -> bool {
    package.starts_with("windlass.") && !PUBLIC.contains(&package)
}

fn has_services(file: &prost_types::FileDescriptorProto) -> bool {
    !file.service.is_empty()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
