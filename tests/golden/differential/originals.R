# Answers of DESeq2 and limma to the count sets of counts.tsv: columns set, class, then genes; a row for each sample.
# Prints answers.tsv: a line for each set and quantity, numbers with 12 digits. DESeq2 without its ways with outlying
# counts; limma on log counts per million as edgeR has them, of genes that somebody has, and with values missing; limma's
# cameraPR.
suppressMessages({library(edgeR); library(limma); library(DESeq2)})
all <- read.table("counts.tsv", header = TRUE, sep = "\t")
out <- file("answers.tsv", "w")
versions <- sapply(c("DESeq2", "limma", "edgeR"), function(p) as.character(packageVersion(p)))
writeLines(paste("#", R.version.string, paste(names(versions), versions, collapse = " ")), out)
keep <- function(set, what, values)
  writeLines(paste(c(set, what, trimws(formatC(values, digits = 12, format = "g"))), collapse = "\t"), out)
quiet <- function(expression) { utils::capture.output(found <- suppressMessages(expression)); found }
for (set in unique(all$set)) {
  mine <- all[all$set == set, ]
  counts <- t(as.matrix(mine[, -(1:2)]))
  class <- factor(mine$class)
  two <- nlevels(class) == 2
  data <- quiet(estimateDispersions(estimateSizeFactors(DESeqDataSetFromMatrix(counts, data.frame(class), ~class))))
  data <- quiet(if (two) nbinomWaldTest(data) else nbinomLRT(data, reduced = ~1))
  found <- results(data, cooksCutoff = FALSE, independentFiltering = FALSE)
  keep(set, "sizes", sizeFactors(data))
  keep(set, "genewise", mcols(data)$dispGeneEst)
  keep(set, "trend", attr(dispersionFunction(data), "coefficients"))
  keep(set, "prior", attr(dispersionFunction(data), "dispPriorVar"))
  keep(set, "used", dispersions(data))
  keep(set, "effect", found$log2FoldChange)
  keep(set, "statistic", found$stat)
  keep(set, "p", found$pvalue)
  keep(set, "q", found$padj)
  # sets of genes: every seventh of those with a statistic, from the first, the second, ...
  statistic <- found$stat[!is.na(found$stat)]
  index <- lapply(1:6, function(first) seq(first, length(statistic), by = 7))
  camera <- cameraPR(statistic, index, sort = FALSE)
  keep(set, "camera:p", camera$PValue)
  keep(set, "camera:up", as.numeric(camera$Direction == "Up"))
  logs <- cpm(counts[rowSums(counts) > 0, ], log = TRUE)
  logs <- round(logs, 10)
  for (form in c("plain", "trend", "missing")) {
    if (form == "missing") logs[(row(logs) * 7 + col(logs) * 5) %% 23 == 0] <- NA
    fitted <- eBayes(lmFit(logs, model.matrix(~class)), trend = form == "trend")
    if (form == "plain") keep(set, "logs", as.vector(logs))
    keep(set, paste0("limma:", form, ":prior"), c(fitted$df.prior, if (form == "trend") mean(fitted$s2.prior) else fitted$s2.prior))
    keep(set, paste0("limma:", form, ":effect"), fitted$coefficients[, 2])
    keep(set, paste0("limma:", form, ":statistic"), if (two) fitted$t[, 2] else topTable(fitted, coef = 2:nlevels(class), number = Inf, sort.by = "none")$F)
    keep(set, paste0("limma:", form, ":p"), if (two) fitted$p.value[, 2] else topTable(fitted, coef = 2:nlevels(class), number = Inf, sort.by = "none")$P.Value)
  }
}
close(out)
