//! `/set`: how tokens are chosen, by the names and limits of the command line's options.

use crate::args::Sampling;
use crate::values;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use std::error::Error;
use trit_runtime::format::manifest::SamplingDefaults;
use trit_runtime::sample::{Sampler, SamplerOptions};

/// What can be set.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct Settings {
    #[command(flatten)]
    pub sampling: Sampling,
    /// Most tokens to generate.
    #[arg(long, value_parser = values::most_tokens)]
    pub n: Option<usize>,
}

impl Settings {
    /// Changes one setting.
    ///
    /// # Errors
    /// One line for people: no such setting, or no such value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let option = name.trim_start_matches('-').replace('_', "-");
        let names = Settings::names();
        if !names.contains(&option) {
            return Err(format!("{name:?} is no setting; there are {}", names.join(", ").replace('-', "_")));
        }
        if value.is_empty() {
            return Err(format!("give {name} a value, as in /set {name} 1"));
        }
        self.try_update_from([format!("--{option}={value}")]).map_err(|error| {
            let text = match (error.kind(), error.source()) {
                (ErrorKind::ValueValidation, Some(why)) => why.to_string(),
                _ => error.to_string().lines().next().unwrap_or_default().replace("error: ", ""),
            };
            format!("{name} cannot be {value:?}: {text}")
        })
    }

    /// What is set, and what the bundle suggests for the rest: one line for each setting.
    pub fn show(&self, options: &SamplerOptions) -> String {
        let SamplerOptions { temperature, top_k, top_p, min_p, repeat_penalty, seed, .. } = options;
        let n = self
            .n
            .filter(|&n| n < usize::MAX)
            .map_or("as many as there is room for".to_owned(), |n| n.to_string());
        format!(
            "temp           {temperature}\ntop_k          {top_k}\ntop_p          {top_p}\nmin_p          {min_p}\n\
             repeat_penalty {repeat_penalty}\nseed           {seed}\nn              {n}\n"
        )
    }

    /// What chooses tokens of a bundle. Without a seed that was set it is another one each time.
    pub fn sampler(&self, suggested: &SamplingDefaults) -> Sampler {
        self.sampling.sampler(suggested)
    }

    fn names() -> Vec<String> {
        Settings::command().get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(settings: &Settings) -> SamplerOptions {
        *settings.sampler(&SamplingDefaults::default()).options()
    }

    fn settings() -> Settings {
        Settings::try_parse_from(["--temp=0.5", "--seed=7"]).unwrap()
    }

    #[test]
    fn one_setting_changes_and_the_others_stay() {
        let mut settings = settings();
        let before = options(&settings);
        for (name, value) in [("top_k", "40"), ("--top-p", "0.9"), ("repeat_penalty", "1.1"), ("n", "12")] {
            settings.set(name, value).unwrap_or_else(|e| panic!("{e}"));
        }
        let set = options(&settings);
        assert_eq!(set, SamplerOptions { top_k: 40, top_p: 0.9, repeat_penalty: 1.1, ..before });
        assert_eq!((set.temperature, set.seed, settings.n), (0.5, 7, Some(12)));
        settings.set("n", "-1").unwrap();
        assert!(settings.show(&set).contains("as many as there is room for"));
        settings.set("temp", "0").unwrap();
        settings.set("temp", "0.25").unwrap();
        assert_eq!(options(&settings).temperature, 0.25);
    }

    #[test]
    fn bad_names_and_values_say_what_is_meant() {
        let mut settings = settings();
        let before = options(&settings);
        for (name, value, words) in [
            ("tmp", "1", "temp, top_k"),
            ("temp", "", "/set temp 1"),
            ("temp", "hot", "0 takes the most probable"),
            ("temp", "-1", "0 takes the most probable"),
            ("temp", "nan", "0 takes the most probable"),
            ("top_p", "1.5", "1: choose among all"),
            ("top_k", "-2", "0 or -1"),
            ("seed", "x", "seed"),
            ("n", "-2", "-1 for no limit"),
            ("seed", "1 --temp=9", "seed"),
        ] {
            let error = settings.set(name, value).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{name} {value}: {error}");
        }
        assert_eq!(options(&settings), before);
    }

    #[test]
    fn every_setting_is_shown_by_its_name() {
        let settings = settings();
        let shown = settings.show(&options(&settings));
        let names: Vec<&str> = shown.lines().filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(names, Settings::names().iter().map(|n| n.replace('-', "_")).collect::<Vec<_>>());
        assert!(shown.contains("temp           0.5\n"), "{shown}");
    }
}
