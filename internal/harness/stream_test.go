package harness

import "testing"

func TestContaining(t *testing.T) {
	for _, c := range []struct {
		part, text string
		want       bool
	}{
		{"g2", "<message id='g2'>", true},
		{"g2", `<message id="g2">`, true},
		{"g2", "<occupant-id id='g20AAA'>", false},
		{"g2", "<occupant-id id='g20AAA'/><body>g2</body>", true},
		{"<message", "<message id='g2'>", true},
		{"<message", "<messages>", false},
		{"club@", "<message from='club@conference.localhost'>", true},
		{"/carola'", "<presence from='tea@conference.localhost/carola'>", true},
		{"Éx", "<presence from='tea@conference.localhost/Éx &lt;y'>", true},
		{"a.b", "a+b", false},
	} {
		if got := Containing(c.part)(c.text); got != c.want {
			t.Errorf("%q in %q: %v", c.part, c.text, got)
		}
	}
}
