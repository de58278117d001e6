package translator

import "testing"

// TestForget takes a source up again that another process has heard meanwhile, and told
// of: what the table remembers from before must not be told as news.
func TestForget(t *testing.T) {
	st := newStage()
	st.play(append(whole, "session-start a/1", "online a/1", "session-start b/1", "online b/1", "2:resume", "2:session-start b/2", "2:online b/2")...)
	st.play("elsewhere offline a/1", "elsewhere session-end a/1", "elsewhere session-start c/1", "elsewhere online c/1")
	want(t, st.play("gap", "forget", "resume", "2:resume", "snapshot-start s", "snapshot b/1", "snapshot c/1", "snapshot-end s"))
	want(t, st.play("offline c/1", "session-start a/1", "online a/1"),
		"offline c/1: offline carol@localhost/1 user=carol@localhost count=0 unverified",
		"online a/1: online alice@localhost/1 user=alice@localhost count=1 unverified")
	// The other source goes on as if nothing had been.
	want(t, st.play("2:offline b/2"), "2:offline b/2: offline bob@localhost/2 user=bob@localhost count=1 unverified")
	want(t, st.play("2:snapshot-start s", "2:snapshot-end s", "offline a/1"), "offline a/1: offline alice@localhost/1 user=alice@localhost count=0")

	st.tr.Forget("never heard of")
	st = newStage()
	st.play(append(whole, "session-start a/1", "online a/1", "forget")...)
	want(t, st.play("lost", "snapshot-start s", "snapshot a/1", "snapshot-end s"),
		"snapshot a/1: online alice@localhost/1 user=alice@localhost count=1 unverified reconciled")
}
