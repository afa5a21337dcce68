//! Values on their way from the guest to PostgreSQL and back, type by type.

use anyhow::{Context, Result};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use postgres_range::{BoundSided, BoundType, Normalizable, Range, RangeBound};
use rust_decimal::Decimal;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};
use uuid::Uuid;

use crate::bindings::postgres::{
    Column, DbDataType, DbValue, Interval as WitInterval, ParameterValue, RangeBoundKind,
};
use crate::postgres::sql_types::{Bound, Interval, Null, Unsupported};

/// A parameter as `tokio_postgres` takes it.
pub(crate) type SqlParameter = Box<dyn ToSql + Send + Sync>;
type WitDate = (i32, u8, u8);
type WitTime = (u8, u8, u8, u32);
type WitDateTime = (i32, u8, u8, u8, u8, u8, u32);
type WitRange<T> = (Option<(T, RangeBoundKind)>, Option<(T, RangeBoundKind)>);

/// Parameters of a statement.
///
/// # Errors
///
/// One that no PostgreSQL could take: a date, a number or JSON that is none.
pub(crate) fn parameters(values: Vec<ParameterValue>) -> Result<Vec<SqlParameter>> {
    values.into_iter().map(parameter).collect()
}

fn parameter(value: ParameterValue) -> Result<SqlParameter> {
    Ok(match value {
        ParameterValue::Boolean(value) => Box::new(value),
        ParameterValue::Int8(value) => Box::new(value),
        ParameterValue::Int16(value) => Box::new(value),
        ParameterValue::Int32(value) => Box::new(value),
        ParameterValue::Int64(value) => Box::new(value),
        ParameterValue::Floating32(value) => Box::new(value),
        ParameterValue::Floating64(value) => Box::new(value),
        ParameterValue::Str(value) => Box::new(value),
        ParameterValue::Binary(value) => Box::new(value),
        ParameterValue::Date(value) => Box::new(date(value)?),
        ParameterValue::Time(value) => Box::new(time(value)?),
        ParameterValue::Datetime((year, month, day, hour, minute, second, nanosecond)) => {
            Box::new(NaiveDateTime::new(
                date((year, month, day))?,
                time((hour, minute, second, nanosecond))?,
            ))
        }
        ParameterValue::Timestamp(seconds) => Box::new(timestamp(seconds)?),
        ParameterValue::Uuid(value) => {
            Box::new(Uuid::parse_str(&value).with_context(|| format!("invalid UUID {value}"))?)
        }
        ParameterValue::Jsonb(value) => Box::new(json(&value)?),
        ParameterValue::Decimal(value) => Box::new(decimal(&value)?),
        ParameterValue::RangeInt32(value) => Box::new(range(value, Ok)?),
        ParameterValue::RangeInt64(value) => Box::new(range(value, Ok)?),
        ParameterValue::RangeDecimal(value) => {
            Box::new(range(value, |value| decimal(&value).map(Bound))?)
        }
        ParameterValue::ArrayInt32(value) => Box::new(value),
        ParameterValue::ArrayInt64(value) => Box::new(value),
        ParameterValue::ArrayDecimal(values) => {
            let decimals = values.iter().map(|value| value.as_deref().map(decimal).transpose());
            Box::new(decimals.collect::<Result<Vec<_>>>()?)
        }
        ParameterValue::ArrayStr(value) => Box::new(value),
        ParameterValue::Interval(WitInterval { micros, days, months }) => {
            Box::new(Interval { microseconds: micros, days, months })
        }
        ParameterValue::DbNull => Box::new(Null),
    })
}

fn date((year, month, day): WitDate) -> Result<NaiveDate> {
    NaiveDate::from_ymd_opt(year, month.into(), day.into())
        .with_context(|| format!("invalid date y={year}, m={month}, d={day}"))
}

fn time((hour, minute, second, nanosecond): WitTime) -> Result<NaiveTime> {
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond)
        .with_context(|| format!("invalid time {hour}:{minute}:{second}:{nanosecond}"))
}

fn timestamp(seconds: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
        .with_context(|| format!("invalid epoch timestamp {seconds}"))
}

fn json(text: &[u8]) -> Result<serde_json::Value> {
    serde_json::from_slice(text)
        .with_context(|| format!("invalid JSON {}", String::from_utf8_lossy(text)))
}

/// Up to 28 digits, as a guest's own decimals have.
fn decimal(text: &str) -> Result<Decimal> {
    Decimal::from_str_exact(text).with_context(|| format!("invalid decimal {text}"))
}

fn range<T, U: Normalizable + PartialOrd>(
    (lower, upper): WitRange<T>,
    convert: impl Fn(T) -> Result<U>,
) -> Result<Range<U>> {
    fn bound<S: BoundSided, T, U: PartialOrd>(
        bound: Option<(T, RangeBoundKind)>,
        convert: impl Fn(T) -> Result<U>,
    ) -> Result<Option<RangeBound<S, U>>> {
        let Some((value, kind)) = bound else { return Ok(None) };
        let kind = match kind {
            RangeBoundKind::Inclusive => BoundType::Inclusive,
            RangeBoundKind::Exclusive => BoundType::Exclusive,
        };
        Ok(Some(RangeBound::new(convert(value)?, kind)))
    }
    Ok(Range::new(bound(lower, &convert)?, bound(upper, &convert)?))
}

/// The columns of a row.
pub(crate) fn columns(row: &Row) -> Vec<Column> {
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().to_owned(),
        data_type: data_type(column.type_()),
    };
    row.columns().iter().map(column).collect()
}

fn data_type(of: &Type) -> DbDataType {
    match *of {
        Type::BOOL => DbDataType::Boolean,
        Type::BYTEA => DbDataType::Binary,
        Type::FLOAT4 => DbDataType::Floating32,
        Type::FLOAT8 => DbDataType::Floating64,
        Type::INT2 => DbDataType::Int16,
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DbDataType::Str,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => DbDataType::Datetime,
        Type::DATE => DbDataType::Date,
        Type::TIME => DbDataType::Time,
        Type::UUID => DbDataType::Uuid,
        Type::JSONB => DbDataType::Jsonb,
        Type::NUMERIC => DbDataType::Decimal,
        Type::INT4_RANGE => DbDataType::RangeInt32,
        Type::INT8_RANGE => DbDataType::RangeInt64,
        Type::NUM_RANGE => DbDataType::RangeDecimal,
        Type::INT4_ARRAY => DbDataType::ArrayInt32,
        Type::INT8_ARRAY => DbDataType::ArrayInt64,
        Type::NUMERIC_ARRAY => DbDataType::ArrayDecimal,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => DbDataType::ArrayStr,
        Type::INTERVAL => DbDataType::Interval,
        _ => DbDataType::Other(of.name().to_owned()),
    }
}

/// The values of a row.
///
/// # Errors
///
/// A value that its type cannot hold here, such as a number of more digits than a
/// decimal has, and every `timestamptz`.
pub(crate) fn values(row: &Row) -> Result<Vec<DbValue>> {
    (0..row.len()).map(|index| value(row, index)).collect()
}

fn value(row: &Row, index: usize) -> Result<DbValue> {
    match *row.columns()[index].type_() {
        Type::BOOL => read(row, index, DbValue::Boolean),
        Type::BYTEA => read(row, index, DbValue::Binary),
        Type::FLOAT4 => read(row, index, DbValue::Floating32),
        Type::FLOAT8 => read(row, index, DbValue::Floating64),
        Type::INT2 => read(row, index, DbValue::Int16),
        Type::INT4 => read(row, index, DbValue::Int32),
        Type::INT8 => read(row, index, DbValue::Int64),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => read(row, index, DbValue::Str),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            try_read(row, index, |value| Ok(DbValue::Datetime(wit_date_time(value)?)))
        }
        Type::DATE => try_read(row, index, |value| Ok(DbValue::Date(wit_date(value)?))),
        Type::TIME => try_read(row, index, |value| Ok(DbValue::Time(wit_time(value)?))),
        Type::UUID => read(row, index, |value: Uuid| DbValue::Uuid(value.to_string())),
        Type::JSONB => try_read(row, index, |value: serde_json::Value| {
            Ok(DbValue::Jsonb(serde_json::to_vec(&value).context("invalid JSON from database")?))
        }),
        Type::NUMERIC => read(row, index, |value: Decimal| DbValue::Decimal(value.to_string())),
        Type::INT4_RANGE => {
            read(row, index, |value| DbValue::RangeInt32(wit_range(&value, |bound: &i32| *bound)))
        }
        Type::INT8_RANGE => {
            read(row, index, |value| DbValue::RangeInt64(wit_range(&value, |bound: &i64| *bound)))
        }
        Type::NUM_RANGE => read(row, index, |value| {
            DbValue::RangeDecimal(wit_range(&value, |Bound(bound)| bound.to_string()))
        }),
        Type::INT4_ARRAY => read(row, index, DbValue::ArrayInt32),
        Type::INT8_ARRAY => read(row, index, DbValue::ArrayInt64),
        Type::NUMERIC_ARRAY => read(row, index, |values: Vec<Option<Decimal>>| {
            let text = |value: Option<Decimal>| value.map(|value| value.to_string());
            DbValue::ArrayDecimal(values.into_iter().map(text).collect())
        }),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => {
            read(row, index, DbValue::ArrayStr)
        }
        Type::INTERVAL => read(row, index, |Interval { microseconds, days, months }| {
            DbValue::Interval(WitInterval { micros: microseconds, days, months })
        }),
        _ => read(row, index, |Unsupported(bytes)| DbValue::Unsupported(bytes)),
    }
}

fn read<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    convert: impl FnOnce(T) -> DbValue,
) -> Result<DbValue> {
    try_read(row, index, |value| Ok(convert(value)))
}

fn try_read<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    convert: impl FnOnce(T) -> Result<DbValue>,
) -> Result<DbValue> {
    let value: Option<T> = row.try_get(index)?;
    value.map_or(Ok(DbValue::DbNull), convert)
}

fn wit_date(value: NaiveDate) -> Result<WitDate> {
    Ok((value.year(), value.month().try_into()?, value.day().try_into()?))
}

fn wit_time(value: NaiveTime) -> Result<WitTime> {
    Ok((
        value.hour().try_into()?,
        value.minute().try_into()?,
        value.second().try_into()?,
        value.nanosecond(),
    ))
}

fn wit_date_time(value: NaiveDateTime) -> Result<WitDateTime> {
    let (year, month, day) = wit_date(value.date())?;
    let (hour, minute, second, nanosecond) = wit_time(value.time())?;
    Ok((year, month, day, hour, minute, second, nanosecond))
}

fn wit_range<T: Normalizable + PartialOrd, U>(
    range: &Range<T>,
    convert: impl Fn(&T) -> U,
) -> WitRange<U> {
    fn bound<S: BoundSided, T, U>(
        bound: &RangeBound<S, T>,
        convert: impl Fn(&T) -> U,
    ) -> (U, RangeBoundKind) {
        let kind = match bound.type_ {
            BoundType::Inclusive => RangeBoundKind::Inclusive,
            BoundType::Exclusive => RangeBoundKind::Exclusive,
        };
        (convert(&bound.value), kind)
    }
    let lower = range.lower().map(|lower| bound(lower, &convert));
    let upper = range.upper().map(|upper| bound(upper, &convert));
    (lower, upper)
}

/// Bytes of memory that a row takes here.
pub(crate) fn row_bytes(row: &[DbValue]) -> usize {
    row.iter().map(|value| size_of::<DbValue>() + bytes_beside(value)).sum()
}

fn bytes_beside(value: &DbValue) -> usize {
    match value {
        DbValue::Str(text) | DbValue::Uuid(text) | DbValue::Decimal(text) => text.len(),
        DbValue::Binary(bytes) | DbValue::Jsonb(bytes) | DbValue::Unsupported(bytes) => bytes.len(),
        DbValue::ArrayInt32(values) => size_of_val(values.as_slice()),
        DbValue::ArrayInt64(values) => size_of_val(values.as_slice()),
        DbValue::ArrayDecimal(values) | DbValue::ArrayStr(values) => {
            let beside = values.iter().flatten().map(String::len).sum::<usize>();
            size_of_val(values.as_slice()) + beside
        }
        DbValue::Boolean(_)
        | DbValue::Int8(_)
        | DbValue::Int16(_)
        | DbValue::Int32(_)
        | DbValue::Int64(_)
        | DbValue::Floating32(_)
        | DbValue::Floating64(_)
        | DbValue::Date(_)
        | DbValue::Time(_)
        | DbValue::Datetime(_)
        | DbValue::Timestamp(_)
        | DbValue::RangeInt32(_)
        | DbValue::RangeInt64(_)
        | DbValue::RangeDecimal(_)
        | DbValue::Interval(_)
        | DbValue::DbNull => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_could_take_is_refused_with_the_value() {
        let bound = Some(("x".to_owned(), RangeBoundKind::Inclusive));
        for (value, named) in [
            (ParameterValue::Date((2023, 2, 29)), "invalid date y=2023, m=2, d=29"),
            (ParameterValue::Time((24, 0, 0, 0)), "invalid time 24:0:0:0"),
            (ParameterValue::Datetime((2024, 13, 1, 0, 0, 0, 0)), "invalid date"),
            (ParameterValue::Datetime((2024, 12, 1, 0, 60, 0, 0)), "invalid time"),
            (ParameterValue::Timestamp(i64::MAX), "invalid epoch timestamp"),
            (ParameterValue::Uuid("x".to_owned()), "invalid UUID x"),
            (ParameterValue::Jsonb(b"{".to_vec()), "invalid JSON {"),
            (ParameterValue::Decimal("1e5".to_owned()), "invalid decimal 1e5"),
            (ParameterValue::RangeDecimal((bound, None)), "invalid decimal x"),
            (ParameterValue::ArrayDecimal(vec![None, Some(String::new())]), "invalid decimal "),
        ] {
            let error = parameters(vec![value.clone()]).expect_err(&format!("{value:?}"));
            assert!(format!("{error:?}").contains(named), "{value:?}: {error:?}");
        }
    }

    #[test]
    fn dates_and_times_come_back() -> Result<()> {
        let of_day = (23, 59, 58, 999_999_000);
        for of_year in [(1, 1, 1), (-44, 3, 15), (2024, 2, 29)] {
            assert_eq!(wit_date(date(of_year)?)?, of_year);
            let both = NaiveDateTime::new(date(of_year)?, time(of_day)?);
            let (year, month, day) = of_year;
            assert_eq!(wit_date_time(both)?, (year, month, day, 23, 59, 58, 999_999_000));
        }
        assert_eq!(wit_time(time(of_day)?)?, of_day);
        assert_eq!(timestamp(-1)?.to_rfc3339(), "1969-12-31T23:59:59+00:00");
        Ok(())
    }

    #[test]
    fn ranges_come_back() -> Result<()> {
        use RangeBoundKind::{Exclusive, Inclusive};
        let text = |(value, kind): (&str, _)| (value.to_owned(), kind);
        for given in [
            (None, None),
            (Some(("1.50", Inclusive)), Some(("2", Exclusive))),
            (Some(("-3", Exclusive)), None),
            (None, Some(("4", Inclusive))),
        ] {
            let given: WitRange<String> = (given.0.map(text), given.1.map(text));
            let range = range(given.clone(), |value| decimal(&value).map(Bound))?;
            assert_eq!(
                format!("{:?}", wit_range(&range, |Bound(b)| b.to_string())),
                format!("{given:?}")
            );
        }
        // Whole numbers are normalized, and a range that ends before it begins is
        // empty, which a guest cannot tell from one without bounds.
        let whole = range((Some((1, Exclusive)), Some((3, Inclusive))), Ok)?;
        let whole = format!("{:?}", wit_range(&whole, |bound: &i32| *bound));
        assert_eq!(whole, format!("{:?}", (Some((2, Inclusive)), Some((4, Exclusive)))));
        let empty = range((Some((3, Inclusive)), Some((1, Inclusive))), Ok)?;
        assert!(matches!(wit_range(&empty, |bound: &i64| *bound), (None, None)));
        Ok(())
    }

    #[test]
    fn what_a_row_takes_is_counted() {
        let value = size_of::<DbValue>();
        for (of, expected) in [
            (DbValue::Int64(1), 0),
            (DbValue::Str("four".to_owned()), 4),
            (DbValue::Jsonb(vec![0; 3]), 3),
            (DbValue::ArrayInt32(vec![None, Some(1)]), 2 * size_of::<Option<i32>>()),
            (
                DbValue::ArrayStr(vec![None, Some("ab".to_owned())]),
                2 * size_of::<Option<String>>() + 2,
            ),
        ] {
            assert_eq!(row_bytes(&[of.clone(), of]), 2 * (value + expected));
        }
    }
}
