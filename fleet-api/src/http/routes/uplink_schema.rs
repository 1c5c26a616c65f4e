//! What an uplink's policy looks like, from the constants of its check.

use longhaul_protocol::forms::BUCKET;
use longhaul_protocol::uplink::{MAX_PRIORITIES, MAX_RATE, MIN_RATE};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    Array, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, Type,
};

/// Priorities by bucket.
pub(super) fn priorities() -> Object {
    let names = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(3))
        .max_length(Some(63))
        .pattern(Some(BUCKET));
    let one = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["urgent", "normal", "low"]));
    ObjectBuilder::new()
        .property_names(Some(names))
        .additional_properties(Some(Schema::from(one)))
        .max_properties(Some(MAX_PRIORITIES))
        .build()
}

/// Limits for each hour of seven days.
pub(super) fn limits() -> Array {
    let whole = |from: u64, to: u64| {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(from))
            .maximum(Some(to))
    };
    let hour = OneOfBuilder::new()
        .item(Object::with_type(Type::Null))
        .item(whole(0, 0))
        .item(whole(MIN_RATE, MAX_RATE));
    let exactly = |n: usize, of: Schema| {
        let all = ArrayBuilder::new().items(RefOr::T(of));
        all.min_items(Some(n)).max_items(Some(n)).build()
    };
    let day = exactly(24, Schema::OneOf(hour.build()));
    exactly(7, Schema::Array(day))
}
