use super::*;
use crate::platform::fake::{FakePlatform, NOW, now};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

fn store(platform: &Rc<FakePlatform>) -> SqliteStore {
    SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
}

/// A platform whose database is set up.
fn platform() -> Rc<FakePlatform> {
    let platform = FakePlatform::new();
    now(store(&platform).probe()).unwrap();
    platform
}

fn lease(holder: u32, after_ms: i64) -> Lease {
    Lease { holder, now: NOW + after_ms, for_ms: Lease::MS }
}

fn takes(platform: &Rc<FakePlatform>, lease: Lease) -> bool {
    now(store(platform).take_lease(lease)).unwrap()
}

fn takes_first(platform: &Rc<FakePlatform>, lease: Lease) -> bool {
    take_first(&**platform, lease).unwrap().is_some()
}

/// Both ways to a lease.
const WAYS: [fn(&Rc<FakePlatform>, Lease) -> bool; 2] = [takes, takes_first];

#[test]
fn one_of_several_has_it_and_prolongs_it() {
    for takes in WAYS {
        let platform = platform();
        let takers: Vec<_> = (1..=5).filter(|holder| takes(&platform, lease(*holder, 0))).collect();
        assert_eq!(takers, [1], "the first");
        // As long as it prolongs it, nobody else has it.
        for after in (0..10 * Lease::MS).step_by(300) {
            assert!(takes(&platform, lease(1, after)), "after {after} ms");
            assert!(!takes(&platform, lease(2, after + 299)), "after {after} ms");
        }
    }
}

#[test]
fn another_has_it_when_it_has_ended() {
    for takes in WAYS {
        let platform = platform();
        assert!(takes(&platform, lease(1, 0)));
        assert!(!takes(&platform, lease(2, Lease::MS - 1)));
        assert!(takes(&platform, lease(2, Lease::MS)));
        assert!(!takes(&platform, lease(1, Lease::MS)), "who had it is another now");
    }
}

#[test]
fn another_has_it_at_once_when_it_is_given_up() {
    for other in WAYS {
        let platform = platform();
        assert!(takes(&platform, lease(1, 0)));
        assert!(!other(&platform, lease(2, 1)));
        assert!(takes(&platform, Lease { for_ms: 0, ..lease(1, 2) }));
        assert!(other(&platform, lease(2, 2)));
        let late = Lease { for_ms: 0, ..lease(1, 3) };
        assert!(!takes(&platform, late), "what another has cannot be given up");
        assert!(!other(&platform, lease(3, 3)));
    }
}

#[test]
fn a_lease_of_a_clock_far_ahead_holds_nobody_off() {
    for takes in WAYS {
        let platform = platform();
        assert!(takes(&platform, lease(1, AHEAD_MS_MAX + 1)));
        assert!(takes(&platform, lease(2, 0)));
        assert!(!takes(&platform, lease(3, 0)), "which is one that holds again");
    }
}

/// Who asks may have waited for a lock, and not know how late it is.
#[test]
fn who_is_a_little_late_does_not_take_it_over() {
    for other in WAYS {
        let platform = platform();
        for late in [1, Lease::MS, AHEAD_MS_MAX] {
            assert!(takes(&platform, lease(1, AHEAD_MS_MAX)));
            assert!(!other(&platform, lease(2, AHEAD_MS_MAX - late)), "{late} ms late");
        }
    }
}

#[test]
fn only_some_bits_of_the_holder_count_and_the_moment_is_whole() {
    let platform = platform();
    assert!(takes(&platform, lease(u32::MAX, 0)));
    assert!(takes(&platform, lease(u32::MAX, 1)), "it is the same holder");
    assert!(!takes(&platform, lease(0, 2)));
    let value = "SELECT value FROM counters WHERE name = 'writer_lease'";
    let value: i64 = platform.connection.query_row(value, [], |row| row.get(0)).unwrap();
    assert_eq!(value >> HOLDER_BITS, NOW + 1 + Lease::MS);
    assert_eq!(value & ((1 << HOLDER_BITS) - 1), (1 << HOLDER_BITS) - 1);
}

#[test]
fn it_is_no_mark_and_no_counter_that_is_shown() {
    let platform = platform();
    assert!(takes(&platform, lease(1, 0)));
    let store = store(&platform);
    assert!(now(store.marks()).unwrap().0.is_empty());
    let stats = now(store.summary(9)).unwrap();
    assert_eq!((stats.all.received(), stats.rejected, stats.topic_count), (0, 0, 0));
}

#[test]
fn whoever_comes_too_late_takes_no_lock() {
    let platform = platform();
    assert!(takes_first(&platform, lease(1, 0)));
    platform.statements.borrow_mut().clear();
    assert!(!takes_first(&platform, lease(2, 1)));
    let statements = platform.statements.take();
    let writes = statements.iter().filter(|statement| statement.starts_with("INSERT"));
    assert_eq!(writes.count(), 0, "{statements:?}");
}

#[test]
fn a_store_that_is_not_set_up_has_none() {
    let platform = FakePlatform::new();
    assert!(take_first(&*platform, lease(1, 0)).is_err());
    let tables: i64 = platform
        .connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 0, "and is left alone");
}
