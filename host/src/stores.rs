//! What is behind the labels of databases and stores in the manifest: what the
//! runtime configuration says, and for `default` else a file in the state
//! directory.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::database_file::DatabaseFile;
use crate::key_value::{RedisServer, StoreFile, StorePlace, Stores};
use crate::manifest::Component;
use crate::runtime_config::{KeyValueStore, RuntimeConfig, SqliteDatabase, SqliteFile};
use crate::sqlite::{Database, Databases};
use crate::state_dir::StateDir;

/// The one label that needs no runtime configuration.
const DEFAULT_LABEL: &str = "default";

/// Databases and stores of an application by their labels.
#[derive(Debug)]
pub(crate) struct Labels {
    databases: BTreeMap<String, Database>,
    stores: BTreeMap<String, StorePlace>,
    files: Vec<PathBuf>,
}

impl Labels {
    /// Those of `config`, and what is in the state directory. Labels of the same
    /// file share it.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made.
    pub(crate) fn new(mut config: RuntimeConfig, state_dir: &StateDir) -> Result<Self> {
        config.databases.entry(DEFAULT_LABEL.to_owned()).or_insert_with(|| {
            let path = state_dir.sqlite_file();
            SqliteDatabase::File(SqliteFile { path, allow_attach_file: false })
        });
        config
            .stores
            .entry(DEFAULT_LABEL.to_owned())
            .or_insert_with(|| KeyValueStore::File(state_dir.key_value_file()));

        let mut files = Files::default();
        let mut databases = BTreeMap::new();
        for (label, database) in config.databases {
            let database = match database {
                SqliteDatabase::File(SqliteFile { path, allow_attach_file }) => {
                    let file = files.get(path, DatabaseFile::new)?;
                    Database::File { file, allow_attach_file }
                }
                SqliteDatabase::Server(server) => Database::Server(Arc::new(server)),
            };
            databases.insert(label, database);
        }
        let mut store_files = Files::default();
        let mut stores = BTreeMap::new();
        for (label, store) in config.stores {
            let place = match store {
                KeyValueStore::File(path) => StorePlace::File(
                    store_files.get(path, |path| StoreFile::new(DatabaseFile::new(path)))?,
                ),
                KeyValueStore::Redis(url) => StorePlace::Redis(Arc::new(RedisServer::new(url.0))),
            };
            stores.insert(label, place);
        }
        let files = files.0.into_keys().chain(store_files.0.into_keys()).collect();
        Ok(Self { databases, stores, files })
    }

    /// The files of all databases and stores.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Those that `component` may open.
    ///
    /// # Errors
    ///
    /// A label behind which there is nothing.
    pub(crate) fn databases_of(&self, component: &Component) -> Result<Databases> {
        let Component { id, sqlite_databases: labels, .. } = component;
        granted(&self.databases, labels, id, ["sqlite_databases", "sqlite_database"])
    }

    /// Those that `component` may open.
    ///
    /// # Errors
    ///
    /// A label behind which there is nothing.
    pub(crate) fn stores_of(&self, component: &Component) -> Result<Stores> {
        let Component { id, key_value_stores: labels, .. } = component;
        granted(&self.stores, labels, id, ["key_value_stores", "key_value_store"]).map(Stores::new)
    }
}

/// Files by their paths, so that there is one of each.
struct Files<T>(BTreeMap<PathBuf, Arc<T>>);

impl<T> Default for Files<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Files<T> {
    /// What `new` makes of `path`; without one, each is another.
    fn get(
        &mut self,
        path: Option<PathBuf>,
        new: impl FnOnce(Option<PathBuf>) -> T,
    ) -> Result<Arc<T>> {
        let Some(path) = path else { return Ok(Arc::new(new(None))) };
        if let Some(file) = self.0.get(&path) {
            return Ok(file.clone());
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        }
        let file = Arc::new(new(Some(path.clone())));
        self.0.insert(path, file.clone());
        Ok(file)
    }
}

fn granted<T: Clone, C: FromIterator<(String, T)>>(
    all: &BTreeMap<String, T>,
    labels: &HashSet<String>,
    component: &str,
    [field, table]: [&str; 2],
) -> Result<C> {
    let find = |label: &String| match all.get(label) {
        Some(found) => Ok((label.clone(), found.clone())),
        None => bail!(
            "component {component:?}: {label:?} in `{field}` is not defined: \
             only {DEFAULT_LABEL:?} is without [{table}.{label}] in a runtime configuration \
             (--runtime-config-file)"
        ),
    };
    labels.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(labels: &[&str]) -> Component {
        let labels: HashSet<_> = labels.iter().map(|label| (*label).to_owned()).collect();
        Component {
            id: "c".to_owned(),
            source: PathBuf::new(),
            variables: BTreeMap::new(),
            environment: BTreeMap::new(),
            allowed_outbound_hosts: Vec::new(),
            key_value_stores: labels.clone(),
            sqlite_databases: labels,
            build: None,
        }
    }

    #[test]
    fn labels() -> Result<()> {
        let root = std::env::temp_dir().join(format!("sekali-stores-{}", std::process::id()));
        let state_dir = StateDir::create(&root, None, None)?;
        let file = root.join("below/own.db");
        let database = || {
            let path = Some(file.clone());
            SqliteDatabase::File(SqliteFile { path, allow_attach_file: true })
        };
        let store = |name: &str| KeyValueStore::File(Some(root.join(name)));
        let config = RuntimeConfig {
            databases: BTreeMap::from([
                ("own".to_owned(), database()),
                ("same".to_owned(), database()),
            ]),
            stores: BTreeMap::from([
                ("default".to_owned(), store("stores.db")),
                ("own".to_owned(), store("own.db")),
            ]),
            ..RuntimeConfig::default()
        };
        let labels = Labels::new(config, &state_dir)?;
        let files: Vec<_> = labels.files().collect();
        let expected = [".spin/sqlite_db.db", "below/own.db", "own.db", "stores.db"]
            .map(|name| root.join(name));
        assert_eq!(files, expected);
        assert!(root.join("below").is_dir());

        let databases = labels.databases_of(&component(&["default", "own", "same"]))?;
        let of = |label: &str| match &databases[label] {
            Database::File { file, allow_attach_file } => (file.clone(), *allow_attach_file),
            other => panic!("{label}: {other:?}"),
        };
        assert!(!of("default").1 && of("own").1);
        assert!(Arc::ptr_eq(&of("own").0, &of("same").0));
        assert!(!Arc::ptr_eq(&of("own").0, &of("default").0));
        labels.stores_of(&component(&["own", "default"]))?;

        for (error, named) in [
            (
                labels.databases_of(&component(&["default", "other"])).map(drop),
                "[sqlite_database.other]",
            ),
            (labels.stores_of(&component(&["same"])).map(drop), "[key_value_store.same]"),
        ] {
            let error = error.expect_err("not defined").to_string();
            assert!(error.contains(named) && error.contains("component \"c\""), "{error}");
        }
        std::fs::remove_dir_all(&root)?;
        Ok(())
    }
}
