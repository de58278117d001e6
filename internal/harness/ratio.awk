# Reads the output of go test -bench and prints, for each benchmark that has the
# parts NAME/eventpusher and NAME/mellium (and perhaps more below them, equal in
# both), how many times faster ours is. With -count each part's best run counts.
/^Benchmark/ && $4 == "ns/op" {
	name = $1
	sub(/-[0-9]+$/, "", name)
	if (!(name in best) || $3 < best[name]) best[name] = $3
}
END {
	for (name in best) {
		theirs = name
		if (name ~ /\/eventpusher/ && sub(/\/eventpusher/, "/mellium", theirs) && theirs in best && best[name] > 0) {
			printf "%s is %.1f times as fast as mellium (%.0f ns against %.0f ns)\n", name, best[theirs] / best[name], best[name], best[theirs]
		}
	}
}
