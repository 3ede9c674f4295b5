//! What there is to install and to build.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::artifacts::cargo;
use crate::workspace::output;

use super::Bench;
use super::report::{Measure, Numbers, Report};

const BINARY: Measure = Measure {
    name: "binary",
    unit: "MB",
    meaning: "size of the program's file: all views in one, beside the peer's tcplife alone",
    target: None,
};

const CRATES: Measure = Measure {
    name: "crates built",
    unit: "1",
    meaning: "packages that cargo compiles for tcp-tools, its own two included",
    target: None,
};

/// Size of the binary, and how many packages go into it.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let size = |file: &Path| -> Result<f64> {
        let data = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(data.len() as f64 / 1e6)
    };
    let ours = [size(&bench.tool)?];
    let peer = bench.peers.tcplife.as_ref();
    let theirs = peer
        .map(|peer| size(peer.program()))
        .transpose()?
        .into_iter()
        .collect::<Vec<_>>();
    let peer = peer.map(|peer| Numbers {
        tool: &peer.name,
        values: &theirs,
    });
    report.row(
        &BINARY,
        &Numbers {
            tool: "tcp-tools",
            values: &ours,
        },
        peer.as_ref(),
    );

    let tree = output(cargo().args([
        "tree",
        "--package=tcp-tools",
        "--edges=normal,build",
        "--prefix=none",
        "--locked",
    ]))?;
    let crates = [packages(&tree) as f64];
    report.row(
        &CRATES,
        &Numbers {
            tool: "tcp-tools",
            values: &crates,
        },
        None,
    );
    Ok(())
}

/// Different packages in what `cargo tree` lists; what comes again is marked `(*)`.
fn packages(tree: &str) -> usize {
    let packages: BTreeSet<_> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    packages.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_once() {
        assert_eq!(packages("a v1 (/x)\nb v1\nc v1\nb v1\nb v2\nc v1 (*)"), 4);
    }
}
