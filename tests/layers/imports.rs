//! Imports point one way: no file of a crate imports another that, directly or
//! by way of others, imports the first.
//!
//! The module tree of a crate is walked from `lib.rs` and `main.rs`. Every path
//! that names a module of the same crate is an import, in `use` and `pub use`,
//! written in place, and in the arguments of macros. It leads to the file of the
//! last module that it names: `use super::wire::Stats` imports `wire`, and
//! `use super::Stats` the parent, whoever defines `Stats` in the end. A parent
//! that declares a child and names nothing of it does not import it.
//!
//! What is for tests only, under `#[cfg(test)]`, may import what it likes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, Item, Meta, UseTree};

/// The files where a crate may begin.
const ROOTS: [&str; 2] = ["lib.rs", "main.rs"];

/// Sources by their path, relative to the folder.
pub type Sources = BTreeMap<PathBuf, String>;

/// Files that import each other, and the imports by which they do.
#[derive(Debug)]
pub struct Loop {
    pub files: BTreeSet<PathBuf>,
    pub imports: Vec<Import>,
}

/// A file names something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: PathBuf,
    pub line: usize,
    pub to: PathBuf,
    /// As it is written, but for groups.
    pub path: String,
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        writeln!(f, "{}", files.join(", "))?;
        let mut seen = BTreeSet::new();
        for Import { from, line, to, path } in &self.imports {
            if !seen.insert((from, to)) {
                continue;
            }
            writeln!(f, "    {}:{line} imports {}: {path}", from.display(), to.display())?;
        }
        Ok(())
    }
}

/// All Rust files of a folder.
///
/// # Errors
///
/// One that cannot be read.
pub fn read(folder: &Path) -> Result<Sources, String> {
    let mut sources = Sources::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let in_current = |error| format!("{}: {error}", current.display());
        for entry in std::fs::read_dir(&current).map_err(in_current)? {
            let path = entry.map_err(in_current)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).map_err(in_current)?;
                let relative = path.strip_prefix(folder).map_err(|error| error.to_string())?;
                sources.insert(relative.to_owned(), text);
            }
        }
    }
    Ok(sources)
}

/// Every import of one file by another.
///
/// # Errors
///
/// As of [`import_loops`].
pub fn imports(sources: &Sources) -> Result<BTreeSet<Import>, String> {
    let roots = ROOTS.map(Path::new).into_iter().filter(|root| sources.contains_key(*root));
    let crates = roots.map(|root| Crate::read(sources, root)).collect::<Result<Vec<_>, _>>()?;
    if crates.is_empty() {
        return Err(format!("there is none of {}", ROOTS.join(", ")));
    }
    Ok(crates.iter().flat_map(Crate::imports).collect())
}

/// Every set of files that import each other.
///
/// # Errors
///
/// No file where a crate begins; a file that is not Rust, or is declared as a
/// module and not there.
pub fn import_loops(sources: &Sources) -> Result<Vec<Loop>, String> {
    let imports = imports(sources)?;
    let mut loops = Vec::<Loop>::new();
    let files: BTreeSet<_> = imports.iter().map(|import| &import.from).collect();
    for file in files {
        if loops.iter().any(|found| found.files.contains(file)) {
            continue;
        }
        let ahead = reachable(&imports, file);
        let in_loop = |other: &&PathBuf| reachable(&imports, other).contains(file);
        let files: BTreeSet<_> = ahead.iter().filter(in_loop).cloned().collect();
        if files.is_empty() {
            continue;
        }
        let within = |import: &&Import| files.contains(&import.from) && files.contains(&import.to);
        let imports = imports.iter().filter(within).cloned().collect();
        loops.push(Loop { files, imports });
    }
    Ok(loops)
}

/// The files that a file imports, also by way of others.
fn reachable(imports: &BTreeSet<Import>, file: &Path) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut left = vec![file];
    while let Some(from) = left.pop() {
        for import in imports.iter().filter(|import| import.from == from) {
            if reached.insert(import.to.clone()) {
                left.push(&import.to);
            }
        }
    }
    reached
}

/// The modules of a crate, by their path from its root.
struct Crate {
    modules: HashMap<Vec<String>, Module>,
}

/// A module: a file, or one written within a file.
struct Module {
    file: PathBuf,
    names: Vec<Name>,
}

/// A path that is written in a module.
struct Name {
    segments: Vec<String>,
    line: usize,
    /// Of a `use`: the name that it gives to what it imports.
    alias: Option<String>,
}

impl Crate {
    fn read(sources: &Sources, root: &Path) -> Result<Self, String> {
        let mut this = Self { modules: HashMap::new() };
        this.add_file(sources, Vec::new(), root, Path::new(""))?;
        Ok(this)
    }

    /// Adds the module of a file, whose children are in the folder `below`.
    fn add_file(
        &mut self,
        sources: &Sources,
        module: Vec<String>,
        file: &Path,
        below: &Path,
    ) -> Result<(), String> {
        let text = sources.get(file).ok_or_else(|| format!("{} is missing", file.display()))?;
        let parsed = syn::parse_file(text).map_err(|error| {
            format!("{}:{}: {error}", file.display(), error.span().start().line)
        })?;
        if is_for_tests(&parsed.attrs) {
            return Ok(());
        }
        self.add_items(sources, module, file, below, &parsed.items)
    }

    fn add_items(
        &mut self,
        sources: &Sources,
        module: Vec<String>,
        file: &Path,
        below: &Path,
        items: &[Item],
    ) -> Result<(), String> {
        let mut names = Names::default();
        for item in items {
            let Item::Mod(child) = item else {
                names.visit_item(item);
                continue;
            };
            if is_for_tests(&child.attrs) {
                continue;
            }
            if child.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                return Err(format!("{}: #[path] is not understood", file.display()));
            }
            let name = child.ident.to_string();
            let path = [&module[..], std::slice::from_ref(&name)].concat();
            let folder = below.join(&name);
            match &child.content {
                Some((_, items)) => self.add_items(sources, path, file, &folder, items)?,
                None => {
                    let nested = folder.join("mod.rs");
                    let beside = folder.with_extension("rs");
                    let child = if sources.contains_key(&nested) { nested } else { beside };
                    self.add_file(sources, path, &child, &folder)?;
                }
            }
        }
        self.modules.insert(module, Module { file: file.to_owned(), names: names.0 });
        Ok(())
    }

    /// Every path that leads from one file to another.
    fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (path, module) in &self.modules {
            let aliases = self.aliases(path, module);
            for name in &module.names {
                let Some(target) = self.target(path, &aliases, name) else { continue };
                let Some(target) = self.modules.get(&target) else { continue };
                if target.file != module.file {
                    imports.insert(Import {
                        from: module.file.clone(),
                        line: name.line,
                        to: target.file.clone(),
                        path: name.segments.join("::"),
                    });
                }
            }
        }
        imports
    }

    /// The modules that a module has imported, by the names it gave them.
    fn aliases(&self, path: &[String], module: &Module) -> HashMap<String, Vec<String>> {
        let none = HashMap::new();
        let imported = module.names.iter().filter_map(|name| {
            let target = self.target(path, &none, name)?;
            // Where the path ends in something else, that is what has the name.
            let is_module = target.last() == name.segments.last() || target.is_empty();
            Some((name.alias.clone().filter(|_| is_module)?, target))
        });
        imported.collect()
    }

    /// The last module that a name leads through, if it leads through one of
    /// this crate.
    fn target(
        &self,
        module: &[String],
        aliases: &HashMap<String, Vec<String>>,
        name: &Name,
    ) -> Option<Vec<String>> {
        let mut at = module.to_vec();
        let mut segments = name.segments.iter().peekable();
        let first = segments.peek()?.as_str();
        match first {
            "crate" => at.clear(),
            "self" | "super" => {}
            // A single word is a local, a macro or a type as well as a module.
            _ if name.segments.len() == 1 && name.alias.is_none() => return None,
            _ if self.modules.contains_key(&joined(module, first)) => at.push(first.to_owned()),
            _ => at = aliases.get(first)?.clone(),
        }
        if first != "super" {
            segments.next();
        }
        while segments.next_if(|segment| *segment == "super").is_some() {
            at.pop()?;
        }
        while let Some(segment) =
            segments.next_if(|name| self.modules.contains_key(&joined(&at, name)))
        {
            at.push(segment.clone());
        }
        Some(at)
    }
}

fn joined(module: &[String], name: &str) -> Vec<String> {
    module.iter().map(String::as_str).chain([name]).map(str::to_owned).collect()
}

/// Whether something is there in tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
    };
    attributes.iter().any(is_test)
}

/// Whether a condition of `cfg` holds in tests only.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(name) => name.is_ident("test"),
        Meta::NameValue(_) => false,
        Meta::List(list) => {
            let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
            let Ok(parts) = list.parse_args_with(parser) else { return false };
            let mut parts = parts.iter();
            match () {
                () if list.path.is_ident("all") => parts.any(needs_test),
                () if list.path.is_ident("any") => parts.len() > 0 && parts.all(needs_test),
                () => false,
            }
        }
    }
}

/// Collects the paths of a module.
#[derive(Default)]
struct Names(Vec<Name>);

impl Names {
    fn add(&mut self, segments: &[&Ident], alias: Option<String>) {
        let Some(first) = segments.first() else { return };
        let line = first.span().start().line;
        let segments = segments.iter().map(ToString::to_string).collect();
        self.0.push(Name { segments, line, alias });
    }

    fn add_use<'a>(&mut self, tree: &'a UseTree, before: &mut Vec<&'a Ident>) {
        let alias = match tree {
            UseTree::Path(path) => {
                before.push(&path.ident);
                self.add_use(&path.tree, before);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_use(tree, before));
            }
            UseTree::Glob(_) => return self.add(before, None),
            UseTree::Name(name) => &name.ident,
            UseTree::Rename(rename) => &rename.rename,
        };
        let name = match tree {
            UseTree::Rename(rename) => &rename.ident,
            _ => alias,
        };
        // `use path::{self}` imports the path itself.
        let itself = name == "self" && !before.is_empty();
        let alias = if alias == "self" { before.last().copied().unwrap_or(alias) } else { alias };
        before.extend((!itself).then_some(name));
        self.add(before, Some(alias.to_string()));
        if !itself {
            before.pop();
        }
    }

    /// The paths among the tokens that a macro is given.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::<Ident>::new();
        // Colons since the last identifier.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    // A single colon, or one after the second, is none of a path's.
                    let ends = (colons == 1) != (punct.spacing() == Spacing::Joint);
                    if !ends {
                        continue;
                    }
                }
                TokenTree::Ident(ident) if colons == 2 => {
                    path.push(ident);
                    colons = 0;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    self.end_path(&mut path);
                    path.push(ident);
                    colons = 0;
                    continue;
                }
                TokenTree::Group(group) => {
                    if colons == 2 && group.delimiter() == Delimiter::Brace {
                        // Of a `use` in a macro: what is in it begins elsewhere.
                        path.clear();
                    }
                    self.add_tokens(group.stream());
                }
                _ => {}
            }
            self.end_path(&mut path);
            colons = 0;
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Vec<Ident>) {
        if path.len() > 1 {
            self.add(&path.iter().collect::<Vec<_>>(), None);
        }
        path.clear();
    }
}

/// Visits what is not for tests only.
macro_rules! skip_tests {
    ($($visit:ident: $node:ident,)+) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(&node.attrs) {
                syn::visit::$visit(self, node);
            }
        })+
    };
}

impl<'ast> Visit<'ast> for Names {
    skip_tests! {
        visit_arm: Arm,
        visit_field: Field,
        visit_field_value: FieldValue,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_fn: ImplItemFn,
        visit_impl_item_type: ImplItemType,
        visit_item_const: ItemConst,
        visit_item_enum: ItemEnum,
        visit_item_fn: ItemFn,
        visit_item_impl: ItemImpl,
        visit_item_macro: ItemMacro,
        visit_item_mod: ItemMod,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_trait: ItemTrait,
        visit_item_type: ItemType,
        visit_local: Local,
        visit_stmt_macro: StmtMacro,
        visit_trait_item_fn: TraitItemFn,
        visit_variant: Variant,
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) && item.leading_colon.is_none() {
            self.add_use(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments: Vec<_> = path.segments.iter().map(|segment| &segment.ident).collect();
            self.add(&segments, None);
        }
        // Its generic arguments hold paths of their own.
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        syn::visit::visit_macro(self, node);
        self.add_tokens(node.tokens.clone());
    }

    /// Who may see something imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}
