//! The vocabulary of programs: values that have a text form.
//!
//! A program that fails is printed. The program can be run again from that text, and is shrunk
//! value by value. So each value of a program can be written, parsed, drawn at random and
//! simplified. [`words!`](crate::words) declares enums whose variants have no fields.
//! [`actions!`](crate::actions) declares an enum whose variants have named fields, such as
//! `Sleep ms=20 how=plain`.

/// A generator of pseudo-random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed ^ 0x5eed_0f57_4e55_0000)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Returns a number less than `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns true with a probability of `percent` percent.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a number from `low` to `high`: `low` itself, or a number in one of the ranges from
    /// `low` to 2 × `low`, from there to 4 × `low`, and so on. `low` and each of the ranges are
    /// equally likely.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (mut least, mut most) = (low, low);
        // The last range may end earlier, at `high`.
        let steps = (high / low.max(1)).max(1).next_power_of_two().ilog2();
        for _ in 0..self.below(u64::from(steps) + 1) {
            least = most;
            most = (most.max(1) * 2).min(high);
        }
        if most > least { least + self.below(most - least + 1) } else { least }
    }

    /// Returns one of `choices`, with a probability in proportion to its weight.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut rest = self.below(choices.iter().map(|choice| choice.0).sum());
        for &(weight, choice) in choices {
            match rest.checked_sub(weight) {
                Some(less) => rest = less,
                None => return choice,
            }
        }
        choices[0].1
    }
}

/// A value in a program.
pub trait Word: Sized + Clone {
    /// Returns the text of the value.
    fn write(&self) -> String;
    /// Returns the value that has this text, or `None` if no value has it.
    fn read(text: &str) -> Option<Self>;
    /// Returns a simpler value, or `None` if the value is already the simplest.
    fn simpler(&self) -> Option<Self>;
    /// Returns a random value.
    fn draw(random: &mut Random) -> Self;
}

macro_rules! number {
    ($(#[$meta:meta])* $name:ident, $least:expr, |$random:ident| $draw:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u64);

        impl Word for $name {
            fn write(&self) -> String {
                self.0.to_string()
            }
            fn read(text: &str) -> Option<Self> {
                text.parse().ok().map($name)
            }
            fn simpler(&self) -> Option<Self> {
                let less = (self.0 / 2).max($least);
                (less < self.0).then_some($name(less))
            }
            fn draw($random: &mut Random) -> Self {
                $name($draw)
            }
        }
    };
}

number! {
    /// A duration in milliseconds, usually short.
    Ms, 0, |random| match random.below(100) {
        0..12 => 0,
        12..40 => 1 + random.below(4),
        40..80 => 5 + random.below(55),
        80..97 => 60 + random.below(300),
        _ => 1000 + random.below(1500),
    }
}

impl Ms {
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

number! {
    /// A small number.
    Few, 1, |random| random.magnitude(1, 6)
}

number! {
    /// A number, at most 400 if it is drawn at random.
    Many, 1, |random| random.magnitude(1, 400)
}

number! {
    /// A number of polls.
    Polls, 1, |random| random.magnitude(1, 30_000)
}

number! {
    /// A length in bytes.
    Bytes, 1, |random| random.magnitude(1, 300_000)
}

/// Declares enums whose variants have no fields. The text of a value is the name of its variant in
/// lower case.
#[macro_export]
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$inner])* $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
        }

        impl $crate::words::Word for $name {
            fn write(&self) -> String {
                format!("{self:?}").to_lowercase()
            }
            fn read(text: &str) -> Option<Self> {
                $name::ALL.iter().copied().find(|value| value.write() == text)
            }
            fn simpler(&self) -> Option<Self> {
                (*self != $name::ALL[0]).then_some($name::ALL[0])
            }
            fn draw(random: &mut $crate::words::Random) -> Self {
                $name::ALL[random.below($name::ALL.len() as u64) as usize]
            }
        }
    )+};
}

/// Declares an enum whose variants have named fields that are [`Word`]s. The number before a
/// variant is its weight in a random draw.
#[macro_export]
macro_rules! actions {
    ($(#[$meta:meta])* $enum:ident {
        $($(#[$inner:meta])* $weight:literal $variant:ident { $($field:ident: $type:ty),* }),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$inner])* $variant { $($field: $type),* }),+ }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {$(
                    $enum::$variant { $($field),* } => {
                        f.write_str(stringify!($variant))?;
                        $(write!(f, " {}={}", stringify!($field), $crate::words::Word::write($field))?;)*
                        Ok(())
                    }
                )+}
            }
        }

        impl std::str::FromStr for $enum {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut parts = text.split_whitespace();
                let name = parts.next().unwrap_or_default();
                let fields: std::collections::HashMap<_, _> = parts.filter_map(|part| part.split_once('=')).collect();
                let _field = |field: &str| fields.get(field).copied().ok_or(format!("`{text}` has no {field}"));
                match name {
                    $(stringify!($variant) => Ok($enum::$variant { $(
                        $field: $crate::words::Word::read(_field(stringify!($field))?)
                            .ok_or(format!("`{text}`: {} is not a value of {}", _field(stringify!($field))?, stringify!($field)))?
                    ),* }),)+
                    _ => Err(format!("`{text}` begins with an unknown name")),
                }
            }
        }

        impl $enum {
            #[allow(dead_code)]
            pub fn draw(random: &mut $crate::words::Random) -> Self {
                let mut rest = random.below([$($weight),+].iter().sum::<u64>());
                $(
                    if rest < $weight {
                        return $enum::$variant { $($field: $crate::words::Word::draw(random)),* };
                    }
                    #[allow(unused_assignments)]
                    { rest -= $weight; }
                )+
                unreachable!("the weights add up")
            }

            /// Returns the values that differ from this one in one field, which is simpler.
            pub fn simpler(&self) -> Vec<Self> {
                let mut found = Vec::new();
                match self {$(
                    $enum::$variant { $($field),* } => {
                        $(
                            if let Some(value) = $crate::words::Word::simpler($field) {
                                let mut simpler = self.clone();
                                #[allow(irrefutable_let_patterns)]
                                if let $enum::$variant { $field, .. } = &mut simpler {
                                    *$field = value;
                                }
                                found.push(simpler);
                            }
                        )*
                    }
                )+}
                found
            }
        }
    };
}
