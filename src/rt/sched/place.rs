//! The location of a call that spawns a task, packed into 26 bits of the task's
//! [`Record`](super::record::Record).

use std::panic::Location;

/// The value whose distance from a location [`pack`] stores. Locations are constants in the program
/// image, so the distances are small. It is a static, because each codegen unit may have its own
/// copy of a constant.
static ANCHOR: usize = 0;

/// The distance of a location from [`ANCHOR`] is a multiple of this.
const ALIGN: isize = align_of::<Location<'static>>() as isize;
const _: () = assert!(align_of::<Location<'static>>() <= align_of::<usize>());
/// The number of bits of a packed location.
pub(super) const BITS: u32 = 26;
const UNUSED_BITS: u32 = u32::BITS - BITS;

/// Packs a location into [`BITS`] bits. Returns 0 if it is too far from [`ANCHOR`], which may
/// happen if it is in another shared library.
pub(super) fn pack(place: &'static Location<'static>) -> u32 {
    let distance = std::ptr::from_ref(place).expose_provenance().wrapping_sub((&raw const ANCHOR).addr()) as isize;
    // No location is at the address of the anchor, so the distance is never 0.
    let units = distance / ALIGN;
    let is_near = units.unsigned_abs() < 1 << (BITS - 1) && distance % ALIGN == 0;
    if is_near { units as u32 & (u32::MAX >> UNUSED_BITS) } else { 0 }
}

/// Returns the location that [`pack`] has packed, or `None` if it was too far.
#[allow(unsafe_code)]
pub(super) fn unpack(packed: u32) -> Option<&'static Location<'static>> {
    if packed == 0 {
        return None;
    }
    // Shifting to the left and back extends the sign.
    let units = ((packed << UNUSED_BITS) as i32 >> UNUSED_BITS) as isize;
    let address = (&raw const ANCHOR).addr().wrapping_add_signed(units * ALIGN);
    // SAFETY: `pack` was given a reference with this address and exposed its provenance. The
    // reference is valid for the life of the program.
    Some(unsafe { &*std::ptr::with_exposed_provenance(address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        for place in [Location::caller(), *[Location::caller()].last().unwrap()] {
            assert!(std::ptr::eq(unpack(pack(place)).unwrap(), place));
        }
    }
}
