# Answers of edgeR, DESeq2, preprocessCore and sva to the count sets of counts.tsv: columns set, batch, class, then genes;
# a row for each sample. Prints answers.tsv: a line for each set, quantity and sample, numbers with 8 digits.
suppressMessages({library(edgeR); library(DESeq2); library(preprocessCore); library(sva)})
all <- read.table("counts.tsv", header = TRUE, sep = "\t")
out <- file("answers.tsv", "w")
versions <- sapply(c("edgeR", "DESeq2", "preprocessCore", "sva"), function(p) as.character(packageVersion(p)))
writeLines(paste("#", R.version.string, paste(names(versions), versions, collapse = " ")), out)
keep <- function(set, what, values) { # values: samples x numbers
  values <- as.matrix(values)
  for (i in seq_len(nrow(values)))
    writeLines(paste(c(set, what, trimws(formatC(values[i, ], digits = 8, format = "g"))), collapse = "\t"), out)
}
quiet <- function(expression) { utils::capture.output(found <- suppressMessages(expression)); found }
for (set in unique(all$set)) {
  mine <- all[all$set == set, ]
  counts <- t(as.matrix(mine[, -(1:3)]))
  factors <- calcNormFactors(counts)
  keep(set, "tmm", factors)
  size <- colSums(counts) * factors
  logs <- cpm(counts, lib.size = size, log = TRUE, prior.count = 2)
  keep(set, "log_cpm", t(logs))
  type <- if (set %% 2) "ratio" else "poscounts"
  if (type == "ratio" && !any(rowSums(counts == 0) == 0)) type <- "poscounts"
  keep(set, paste0("median_of_ratios:", type), estimateSizeFactorsForMatrix(counts, type = type))
  values <- logs
  if (set %% 3 == 0) values[counts == 0] <- NA
  normalised <- normalize.quantiles(if (set %% 3 == 1) counts + 0 else values)
  keep(set, c("quantile:missing", "quantile:counts", "quantile:whole")[set %% 3 + 1], t(normalised))
  mod <- model.matrix(~factor(mine$class))
  batch <- mine$batch
  form <- set %% 6
  # equal values differ in their last bits, and ComBat leaves a gene alone only where they do not
  logs <- round(logs, 10)
  with_missing <- logs
  with_missing[(row(logs) * 7 + col(logs) * 5) %% 23 == 0] <- NA
  corrected <- quiet(switch(as.character(form),
    "0" = ComBat(logs, batch), "1" = ComBat(logs, batch, mean.only = TRUE),
    "2" = ComBat(logs, batch, mod = mod), "3" = ComBat(logs, batch, ref.batch = 1),
    "4" = ComBat(logs, batch, par.prior = FALSE), "5" = ComBat(with_missing, batch)))
  keep(set, paste0("combat:", c("plain", "mean_only", "classes", "reference", "nonparametric", "missing")[form + 1]), t(corrected))
}
close(out)
