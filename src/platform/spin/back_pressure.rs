//! Back-pressure: the host is to hand this instance no more requests.
//!
//! Spin 4.0 hands them over all the same, and they never begin. So there is none in a
//! component that is built for it: an instance does not retire, keeps its door open while
//! it visits the key-value store, and hands its commits to nobody, since instances that
//! are not the one writer could not refuse.

/// Whether there is back-pressure.
pub(super) const IS_THERE: bool = cfg!(feature = "spin-4-1");

/// Takes no more requests, until [`release`] has been called as often.
pub(super) fn raise() {
    #[cfg(feature = "spin-4-1")]
    spin_sdk::wit_bindgen::backpressure_inc();
}

/// Takes requests again.
pub(super) fn release() {
    #[cfg(feature = "spin-4-1")]
    spin_sdk::wit_bindgen::backpressure_dec();
}
