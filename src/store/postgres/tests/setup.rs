//! What an instance finds, or makes, before its first commit.

use super::*;

#[test]
fn a_commit_is_on_disk_whatever_the_role_prefers() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let name = fixture.database.name();
    fixture.sql(&[&format!("ALTER DATABASE {name} SET synchronous_commit = off")]);
    let mut client = fixture.client();
    let mut transaction = client.transaction().unwrap();
    let setting = "SELECT current_setting('synchronous_commit')";
    assert_eq!(transaction.query_one(setting, &[]).unwrap().get::<_, String>(0), "off");
    transaction.batch_execute(&append_sql("t", "a")).unwrap();
    assert_eq!(transaction.query_one(setting, &[]).unwrap().get::<_, String>(0), "on");
}

#[test]
fn an_isolation_that_would_hide_commits_is_refused() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let name = fixture.database.name();
    let repeatable = "SET default_transaction_isolation = 'repeatable read'";
    fixture.sql(&[&format!("ALTER DATABASE {name} {repeatable}")]);
    let error = append(&fixture.store(), &[sample("t", "a", "1")]).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
    assert!(error.message.contains("read committed"), "{error}");
}

#[test]
fn the_schema_is_made_by_the_first_of_many() {
    let Some(database) = database() else { return };
    let threads: Vec<_> = (0..4)
        .map(|writer| {
            let url = database.url();
            thread::spawn(move || {
                let store = store_at(url);
                let event = [sample("t", &writer.to_string(), "1")];
                append(&store, &event).unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let store = store_at(database.url());
    assert_eq!(event_ids(&store, Cursor::START).len(), 4);
}

/// A later version may have taken away what this one needs.
#[test]
fn a_schema_of_another_version_is_left_alone() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    fixture.sql(&["ALTER FUNCTION sekali.append_2 RENAME TO append_3"]);
    let store = fixture.store();
    let event = [sample("t", "a", "1")];
    for _ in 0..2 {
        let error = append(&store, &event).unwrap_err();
        assert_eq!(error.fault, Fault::Unavailable);
        assert!(error.message.contains("append_2"), "{error}");
    }
}

/// Whoever may create nothing has the schema made by somebody who may.
#[test]
fn a_role_with_few_rights_is_enough() {
    let Some(database) = database() else { return };
    let mut superuser =
        database.superuser_config().connect(temporary_postgres::postgres::NoTls).unwrap();
    let user: String =
        database.connect().unwrap().query_one("SELECT current_user::text", &[]).unwrap().get(0);
    superuser
        .batch_execute(&format!(
            "ALTER DATABASE {} OWNER TO CURRENT_USER; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            database.name()
        ))
        .unwrap();
    let store = store_at(database.url());
    let error = append(&store, &[sample("t", "a", "1")]).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
    assert!(error.message.contains("schema cannot be made"), "{error}");

    superuser.batch_execute(SCHEMA).unwrap();
    superuser.batch_execute(SCHEMA_FROM_1).unwrap();
    superuser
        .batch_execute(&include_str!("../grants.sql").replace("sekali_service", &user))
        .unwrap();
    append(&store, &[sample("t", "a", "1"), sample("t", "b", "1")]).unwrap();
    assert_eq!(event_ids(&store, Cursor::START).len(), 2);
    let counted = Increments::from([("n".to_owned(), 2)]);
    now(store.append(&[], Some(&counted))).unwrap();
    now(store.measures(9)).unwrap();
    now(store.summary(9)).unwrap();
    now(store.set_marks(&[("m", 1)])).unwrap();
    let start = Definition { name: "s", topics: &[], start: Start::At(Cursor::START) };
    now(store.define_subscription(start, 9)).unwrap();
    now(store.acknowledge("s", now(store.head()).unwrap())).unwrap();
    now(store.remove_subscription("s")).unwrap();
    now(store.try_commit()).unwrap();
    now(crate::platform::KeyValue::set(&store, "k", b"v")).unwrap();
    assert_eq!(now(crate::platform::KeyValue::get(&store, "k")).unwrap(), Some(b"v".to_vec()));
}
