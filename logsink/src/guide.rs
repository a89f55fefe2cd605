#![doc = include_str!("../docs/guide.md")]

pub mod setup {
    #![doc = include_str!("../docs/setup.md")]
}

pub mod settings {
    #![doc = include_str!("../docs/settings.md")]
}

pub mod delivery {
    #![doc = include_str!("../docs/delivery.md")]
}

pub mod watching {
    #![doc = include_str!("../docs/watching.md")]
}

pub mod migration {
    #![doc = include_str!("../docs/migration.md")]
}

pub mod limits {
    #![doc = include_str!("../docs/limits.md")]
}
