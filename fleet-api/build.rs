//! Makes sure that the folder of the operators' dashboard exists, so that the crate builds before
//! the dashboard does, and is built again after it.

fn main() -> std::io::Result<()> {
    let dist = "../dashboards/operator/dist";
    std::fs::create_dir_all(dist)?;
    println!("cargo::rerun-if-changed={dist}");
    Ok(())
}
