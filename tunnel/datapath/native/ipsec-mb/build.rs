//! Compile the shim and link the library, if its header and its archive are there. Both are of one
//! package, so the compiler and the linker check what the shim takes for granted.

use std::env;
use std::path::PathBuf;

const ARCHIVE: &str = "libIPSec_MB.a";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_ipsec_mb)");
    println!("cargo::rerun-if-changed=src/shim.c");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") && link().is_some() {
        println!("cargo::rustc-cfg=has_ipsec_mb");
    }
}

fn link() -> Option<()> {
    let mut build = cc::Build::new();
    build
        .file("src/shim.c")
        .warnings_into_errors(true)
        .cargo_warnings(false);
    let mut ask = build.try_get_compiler().ok()?.to_command();
    let found = ask
        .arg(format!("-print-file-name={ARCHIVE}"))
        .output()
        .ok()?;
    // If there is none, the answer is the bare name.
    let archive = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
    println!("cargo::rerun-if-changed={}", archive.display());
    let folder = archive.is_absolute().then(|| archive.parent())??;
    build.try_compile("tunnel_ipsec_mb").ok()?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=static=IPSec_MB");
    Some(())
}
