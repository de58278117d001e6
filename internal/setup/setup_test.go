package setup

import (
	"strings"
	"testing"

	"eventpusher/config"
)

// Whatever is attached to whatever, check has nothing to say, and both sides know the secret.
func TestMake(t *testing.T) {
	for _, server := range Servers() {
		for _, to := range append(Types(), "", "https://crm.example.org/hook", "amqps://rabbit.example.org", "tls://nats.example.org", "kafka://127.0.0.1:9093") {
			plan, err := Make(Options{Server: server, Hosts: []string{"example.org", "münchen.example"}, Rooms: []string{"conference.example.org"}, To: to, Config: "config.toml"})
			if err != nil {
				t.Fatalf("%s to %s: %v", server, to, err)
			}
			cfg, problems := config.Parse(plan.Config, nil, t.TempDir())
			// A password that has to be written into the file is warned of until it is.
			if open := strings.HasPrefix(to, "amqps:"); cfg == nil || len(problems) > 0 != open {
				t.Fatalf("%s to %s: %v\n%s", server, to, problems, plan.Config)
			}
			if secret := string(cfg.Component.Secret); len(secret) < 20 || !strings.Contains(string(plan.Commands), secret) {
				t.Errorf("%s: the secret is not in the commands:\n%s", server, plan.Commands)
			}
			if strings.Contains(string(plan.Commands), "<no value>") || strings.Contains(string(plan.Config), "<no value>") {
				t.Errorf("%s to %s: a value is missing", server, to)
			}
		}
	}
}

func TestMakeSaysWhatIsWrong(t *testing.T) {
	for _, one := range []struct {
		o    Options
		want string
	}{
		{Options{Hosts: []string{"example.org"}}, "-server is one of"},
		{Options{Server: "prosody"}, "-host"},
		{Options{Server: "prosody", Hosts: []string{"exa mple"}}, "no domain"},
		{Options{Server: "prosody", Hosts: []string{`x"; os.exit() --`}}, "no domain"},
		{Options{Server: "prosody", Hosts: []string{"example.org"}, Name: "example.org"}, "of the component's own"},
		{Options{Server: "prosody", Hosts: []string{"example.org"}, To: "smtp"}, "-to is one of"},
		{Options{Server: "prosody", Hosts: []string{"example.org"}, To: "http://localhost/x y"}, "holds blanks"},
		{Options{Server: "prosody", Hosts: []string{"example.org"}, To: "amqp://joe:s3cret@rabbit"}, "must not hold a password"},
	} {
		if _, err := Make(one.o); err == nil || !strings.Contains(err.Error(), one.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", one.o, err)
		}
	}
}
