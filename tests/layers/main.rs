//! Imports point one way: no file imports another that imports it, directly or
//! by way of others.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

mod imports;

use imports::{Import, Loop, import_loops, imports, read};

/// The folders that are held to it.
const FOLDERS: [&str; 3] = ["host/src", "publisher/src", "src"];

#[test]
fn imports_point_one_way() -> Result<(), String> {
    let mut report = String::new();
    for folder in FOLDERS {
        let sources = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))?;
        let loops = import_loops(&sources).map_err(|error| format!("{folder}: {error}"))?;
        report.extend(loops.iter().map(|found| format!("{folder}: {found}")));
    }
    assert!(report.is_empty(), "files that import each other:\n{report}");
    Ok(())
}

/// The layers of the component, from the top: each knows only those below it.
const LAYERS: [&str; 17] = [
    "component",
    "routes",
    "writer",
    "app",
    "ingest",
    "history",
    "pruner",
    "commit",
    "limits",
    "http",
    "store",
    "config",
    "event",
    "platform",
    "log",
    "text",
    "time",
];

/// The layer of a file, as its index.
fn layer(file: &Path) -> Option<usize> {
    let first = file.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    LAYERS.iter().position(|layer| *layer == name)
}

#[test]
fn each_layer_knows_only_those_below_it() -> Result<(), String> {
    let sources = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))?;
    let upwards = |import: &&Import| match (layer(&import.from), layer(&import.to)) {
        (Some(from), Some(to)) => from > to,
        _ => true,
    };
    let imports = imports(&sources)?;
    // The map of the crate declares what is there, and imports nothing.
    let files = imports.iter().filter(|import| import.from != Path::new("lib.rs"));
    let upwards: Vec<String> = files
        .filter(upwards)
        .map(|import| {
            let Import { from, line, path, .. } = import;
            format!("{}:{line} imports {path}", from.display())
        })
        .collect();
    assert!(upwards.is_empty(), "against the layers:\n{}", upwards.join("\n"));
    Ok(())
}

/// The files of each loop, of sources as `name: text`.
#[track_caller]
fn loops<const COUNT: usize>(sources: [(&str, &str); COUNT]) -> Vec<String> {
    let sources = sources.map(|(name, text)| (name.into(), text.to_owned()));
    let loops = import_loops(&sources.into()).expect("sources");
    let files = |found: &Loop| {
        let files: Vec<_> = found.files.iter().map(|file| file.display().to_string()).collect();
        files.join(" ")
    };
    loops.iter().map(files).collect()
}

#[test]
fn a_loop_is_named_with_the_imports_that_make_it() {
    let sources = [
        ("lib.rs", "pub mod a; mod b; pub use a::A;"),
        ("a.rs", "use std::fmt;\nuse crate::b::{C, B as D};\npub struct A;"),
        ("b.rs", "pub struct B;\npub struct C;\nfn f(a: &crate::a::A) {}"),
    ];
    let sources = sources.map(|(name, text)| (name.into(), text.to_owned()));
    let [found] = &import_loops(&sources.into()).expect("sources")[..] else { panic!("one loop") };
    // One import of each file by each is enough to see it.
    assert_eq!(
        found.to_string(),
        "a.rs, b.rs\n    \
         a.rs:2 imports b.rs: crate::b::B\n    \
         b.rs:3 imports a.rs: crate::a::A\n"
    );
}

#[test]
fn a_loop_by_way_of_others_is_one_and_others_are_others() {
    let found = loops([
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e; mod f;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C; use crate::d::D;"),
        ("c.rs", "use crate::a::A;"),
        ("d.rs", "use crate::e;"),
        ("e.rs", "use super::d::{self, D};"),
        ("f.rs", "use crate::{a, b, c, d, e};"),
    ]);
    assert_eq!(found, ["a.rs b.rs c.rs", "d.rs e.rs"]);
}

#[test]
fn what_is_for_tests_may_import_what_it_likes() {
    let found = loops([
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod fake;"),
        ("a.rs", "use crate::b::B;"),
        (
            "b.rs",
            "#[cfg(test)] use crate::a::A;
             #[cfg(all(test, unix))] fn f() { crate::a::f() }
             struct S { #[cfg(test)] a: crate::a::A }
             impl S { #[cfg(test)] fn new() -> Self { crate::a::f() } }
             #[cfg(test)] mod tests { use crate::a::A; }
             #[cfg(test)] mod more;",
        ),
        ("b/more.rs", "use crate::a::A;"),
        ("fake.rs", "not Rust"),
    ]);
    assert_eq!(found, [""; 0]);
    for condition in ["not(test)", "any(test, unix)", "unix"] {
        let b = format!("#[cfg({condition})] use crate::a::A;");
        let found =
            loops([("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", &b)]);
        assert_eq!(found, ["a.rs b.rs"], "{condition}");
    }
}

#[test]
fn a_parent_and_a_child_that_use_each_other_are_a_loop() {
    let children = [("a/b.rs", "use super::A;"), ("a/c.rs", "pub struct C;")];
    let with = |root: &str, parent: &str| {
        let root = if root == "a.rs" { "a.rs" } else { "a/mod.rs" };
        loops([("main.rs", "mod a;"), (root, parent), children[0], children[1]])
    };
    for root in ["a.rs", "a/mod.rs"] {
        let both = if root == "a.rs" { "a/b.rs a.rs" } else { "a/b.rs a/mod.rs" };
        for uses in ["use b::B;", "pub use self::b::B;", "fn f() { b::g() }", "use b as x;"] {
            let found = with(root, &format!("mod b; mod c; pub struct A; {uses}"));
            assert_eq!(found, [both], "{root}: {uses}");
        }
        for uses in ["", "use c::C;", "fn f(b: usize) -> usize { b }"] {
            assert_eq!(
                with(root, &format!("mod b; mod c; pub struct A; {uses}")),
                [""; 0],
                "{uses}"
            );
        }
    }
}

#[test]
fn a_path_leads_to_the_last_module_that_it_names() {
    let with = |b: &str| {
        loops([
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub mod x; pub mod y; pub use x::X;"),
            ("a/x.rs", "use crate::b::B; use super::y::Y;"),
            ("a/y.rs", "pub struct Y;"),
            ("b.rs", b),
        ])
    };
    for b in
        ["use crate::a::y::Y;", "use crate::a::y; fn f() { y::g() }", "pub(in crate::a) fn f() {}"]
    {
        assert_eq!(with(b), [""; 0], "{b}");
    }
    // What a module exports again is imported from it.
    for b in ["use crate::a::X;", "use crate::a::{self};", "use super::a::*;"] {
        assert_eq!(with(b), ["a/x.rs a.rs b.rs"], "{b}");
    }
    for b in [
        "use crate::a::x::X;",
        "fn f() -> Option<crate::a::x::X> { None }",
        "mod inner { use super::super::a::x::X; }",
    ] {
        assert_eq!(with(b), ["a/x.rs b.rs"], "{b}");
    }
}

#[test]
fn names_of_modules_and_arguments_of_macros_are_followed() {
    let with = |b: &str| {
        let a = ("a.rs", "use crate::b::B; pub mod x;");
        loops([("lib.rs", "mod a; mod b;"), a, ("a/x.rs", "use crate::b::B;"), ("b.rs", b)])
    };
    for b in [
        "use crate::a; fn f() { a::x::g() }",
        "use crate::a as other; type T = other::x::X;",
        "m! { with: { \"a:b/c\": crate::a::x::X, y: 1 } }",
        "fn f() { println!(\"{}\", m![1, crate::a::x::X::new(2)]) }",
    ] {
        assert!(with(b).concat().contains("a/x.rs"), "{b}: {:?}", with(b));
    }
    for b in [
        "fn f() { println!(\"crate::a::x\") }",
        "m! { use ::a::x::X; a: x, b::c => d }",
        "use ::a::x::X;",
        "use a::x::X;",
        "// crate::a::x\nfn a() {}",
    ] {
        assert_eq!(with(b), [""; 0], "{b}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = |sources: &[(&str, &str)]| {
        let sources = sources.iter().map(|(name, text)| (name.into(), (*text).to_owned()));
        import_loops(&sources.collect()).expect_err("an error")
    };
    assert_eq!(error(&[("a.rs", "")]), "there is none of lib.rs, main.rs");
    assert_eq!(error(&[("lib.rs", "mod a;")]), "a.rs is missing");
    assert!(error(&[("lib.rs", "mod a;"), ("a.rs", "\n+")]).starts_with("a.rs:2: "));
    assert!(error(&[("lib.rs", "#[path = \"b.rs\"] mod a;")]).contains("#[path]"));
}
