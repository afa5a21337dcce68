//! What PostgreSQL has and `tokio_postgres` does not map, or not as a guest sees
//! it.

use std::error::Error;

use bytes::{Buf, BufMut, BytesMut};
use postgres_range::{BoundSided, Normalizable, RangeBound};
use rust_decimal::Decimal;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// What a conversion gives when it fails.
type AnyError = Box<dyn Error + Sync + Send>;

/// NULL of any type: what type is wanted is not known.
#[derive(Debug)]
pub(crate) struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, AnyError> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value of a type that no guest can be given otherwise: its bytes, as the
/// server sent them.
#[derive(Debug)]
pub(crate) struct Unsupported(pub Vec<u8>);

impl FromSql<'_> for Unsupported {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, AnyError> {
        Ok(Self(raw.to_owned()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Of the time of day.
    pub microseconds: i64,
    /// Whole days, which may be longer or shorter than 24 hours.
    pub days: i32,
    /// Whole months.
    pub months: i32,
}

/// Bytes of an interval.
const INTERVAL_BYTES: usize = size_of::<i64>() + 2 * size_of::<i32>();

impl ToSql for Interval {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        out.put_i64(self.microseconds);
        out.put_i32(self.days);
        out.put_i32(self.months);
        Ok(IsNull::No)
    }

    accepts!(INTERVAL);
    to_sql_checked!();
}

impl FromSql<'_> for Interval {
    fn from_sql(_: &Type, mut raw: &[u8]) -> Result<Self, AnyError> {
        if raw.len() != INTERVAL_BYTES {
            return Err("unexpected binary format for Postgres INTERVAL".into());
        }
        Ok(Self { microseconds: raw.get_i64(), days: raw.get_i32(), months: raw.get_i32() })
    }

    accepts!(INTERVAL);
}

/// `numeric` as the bound of a range.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Bound(pub Decimal);

impl ToSql for Bound {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        self.0.to_sql(of, out)
    }

    fn accepts(of: &Type) -> bool {
        <Decimal as ToSql>::accepts(of)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Bound {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        Decimal::from_sql(of, raw).map(Self)
    }

    fn accepts(of: &Type) -> bool {
        <Decimal as FromSql<'_>>::accepts(of)
    }
}

impl Normalizable for Bound {
    /// Between two of them there is always another, so bounds stay as they are.
    fn normalize<S: BoundSided>(bound: RangeBound<S, Self>) -> RangeBound<S, Self> {
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        let interval = Interval { microseconds: -1, days: 2, months: i32::MIN };
        let mut bytes = BytesMut::new();
        interval.to_sql(&Type::INTERVAL, &mut bytes).expect("bytes");
        assert_eq!(Interval::from_sql(&Type::INTERVAL, &bytes).expect("an interval"), interval);
        for length in [0, INTERVAL_BYTES - 1, INTERVAL_BYTES + 1] {
            assert!(Interval::from_sql(&Type::INTERVAL, &vec![0; length]).is_err(), "{length}");
        }
    }
}
