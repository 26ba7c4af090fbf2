"""The commands of `zenvoy`: their options, their help, and what they run."""
