//! Compresses what the component serves as it is: pages, their scripts, the description of
//! the API. They take a third of the room so, and most clients want them like that. So does
//! the schema of PostgreSQL, which is long, and seldom asked for.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    compress(Path::new("src/openapi.json"), &out)?;
    for schema in ["schema.sql", "schema_from_1.sql"] {
        compress(&Path::new("src/store/postgres").join(schema), &out)?;
    }
    // A file that is new is seen by the directory's time.
    println!("cargo::rerun-if-changed=src/web");
    for entry in fs::read_dir("src/web")? {
        compress(&entry?.path(), &out)?;
    }
    Ok(())
}

fn compress(file: &Path, out: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", file.display());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut encoder =
        GzEncoder::new(fs::File::create(out.join(format!("{name}.gz")))?, Compression::best());
    encoder.write_all(&fs::read(file)?)?;
    encoder.finish().map(drop)
}
