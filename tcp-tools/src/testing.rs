//! What unit tests share.

/// Says that a test cannot run because this machine lacks `feature`; the test returns after it.
///
/// # Panics
/// With `TCP_TOOLS_REQUIRE=1`, as end-to-end tests do.
pub(crate) fn skip(feature: &str) {
    assert!(
        std::env::var_os("TCP_TOOLS_REQUIRE").is_none_or(|value| value != "1"),
        "this machine lacks {feature}, and TCP_TOOLS_REQUIRE=1 allows no skips"
    );
    eprintln!("skipped: no {feature}");
}
