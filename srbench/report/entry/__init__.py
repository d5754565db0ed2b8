"""An entry for somebody else's leaderboard: records, samples and a claim in one zip, and whether the claim follows.

- `packing`: from folders of results to a zip, without pixels and paths.
- `checking`: from a stranger's zip to what is wrong with it, without the data.
- `rerun`: a share of the samples again, with the data.
- `zips`: the archive itself.
"""
