//! A value of each type that a parameter may have.

use spin_sdk::pg::wit::postgres::{Interval, ParameterValue, RangeBoundKind};

/// Statements of one parameter, and the parameter.
pub fn of_each_type() -> Vec<(&'static str, ParameterValue)> {
    use ParameterValue as P;
    use RangeBoundKind::{Exclusive, Inclusive};
    let text = str::to_owned;
    vec![
        ("SELECT $1::bool", P::Boolean(true)),
        ("SELECT $1::\"char\"", P::Int8(65)),
        ("SELECT $1::int2", P::Int16(i16::MIN)),
        ("SELECT $1::int4", P::Int32(i32::MIN)),
        ("SELECT $1::int8", P::Int64(i64::MIN)),
        ("SELECT $1::float4", P::Floating32(0.5)),
        ("SELECT $1::float8", P::Floating64(-0.1)),
        ("SELECT $1::text", P::Str(text("ä"))),
        ("SELECT $1::varchar", P::Str(text(""))),
        ("SELECT $1::char(3)", P::Str(text("a"))),
        ("SELECT $1::bytea", P::Binary(vec![0, 255])),
        ("SELECT $1::date", P::Date((2024, 2, 29))),
        ("SELECT $1::time", P::Time((23, 59, 58, 999_999_000))),
        ("SELECT $1::timestamp", P::Datetime((1999, 12, 31, 23, 59, 58, 1_000))),
        ("SELECT $1::timestamptz", P::Timestamp(-1)),
        ("SELECT ($1::timestamptz AT TIME ZONE 'UTC')", P::Timestamp(-1)),
        ("SELECT $1::uuid", P::Uuid(text("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"))),
        ("SELECT $1::jsonb", P::Jsonb(b"{\"b\": 1.10, \"a\": [null, \"\\u00e4\"]}".to_vec())),
        ("SELECT $1::json", P::Jsonb(b"{\"b\": 1.10, \"a\": []}".to_vec())),
        ("SELECT $1::numeric", P::Decimal(text("-12345678901234567890.12345678"))),
        ("SELECT $1::numeric(9, 4)", P::Decimal(text("1.5"))),
        ("SELECT $1::int4range", P::RangeInt32((Some((1, Exclusive)), Some((3, Inclusive))))),
        ("SELECT $1::int4range", P::RangeInt32((Some((3, Inclusive)), Some((1, Inclusive))))),
        ("SELECT $1::int8range", P::RangeInt64((None, Some((3, Exclusive))))),
        (
            "SELECT $1::numrange",
            P::RangeDecimal((Some((text("1.50"), Inclusive)), Some((text("2"), Inclusive)))),
        ),
        ("SELECT $1::int4[]", P::ArrayInt32(vec![Some(1), None])),
        ("SELECT $1::int8[]", P::ArrayInt64(vec![])),
        ("SELECT $1::numeric[]", P::ArrayDecimal(vec![Some(text("0.10")), None])),
        ("SELECT $1::text[]", P::ArrayStr(vec![Some(text("a,b")), None])),
        ("SELECT $1::interval", P::Interval(Interval { micros: -1, days: 2, months: 3 })),
        ("SELECT $1::int4", P::DbNull),
        ("SELECT $1::timestamptz", P::DbNull),
        // What does not fit.
        ("SELECT $1::int4", P::Int64(1)),
        ("SELECT $1::int4", P::Str(text("1"))),
        ("SELECT $1::jsonb", P::Str(text("{}"))),
        ("SELECT $1::jsonb", P::Jsonb(b"{".to_vec())),
        ("SELECT $1::date", P::Date((2023, 2, 29))),
        ("SELECT $1::int4, $2::int4", P::Int32(1)),
        ("SELECT 1", P::Int32(1)),
    ]
}
