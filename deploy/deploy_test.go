// Package deploy has no code: its tests hold the files here against the program.
package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"eventpusher/config"
)

var metric = regexp.MustCompile(`\beventpusher_[a-z_]+`)

// metrics are the names that the program's sources register, whole or put together from a
// beginning, a name and an end in one file.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	whole := regexp.MustCompile(`"(eventpusher_[a-z_]+)"`)
	parts := regexp.MustCompile(`"(eventpusher_[a-z_]*)" ?\+ ?name(?: ?\+ ?"([a-z_]+)")?`)
	word := regexp.MustCompile(`"([a-z][a-z_]+)"`)
	all := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range whole.FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = true
		}
		for _, m := range parts.FindAllStringSubmatch(string(text), -1) {
			for _, w := range word.FindAllStringSubmatch(string(text), -1) {
				all[m[1]+w[1]+m[2]] = true
			}
		}
		return err
	})
	if err != nil || len(all) < 50 {
		t.Fatalf("%d metrics, %v", len(all), err)
	}
	return all
}

// Every metric that a dashboard, a rule or a page names is one of the program's.
func TestMetrics(t *testing.T) {
	known := metrics(t)
	for _, name := range []string{"grafana/eventpusher.json", "prometheus/eventpusher.rules.yml", "prometheus/eventpusher.rules.test.yml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := metric.FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", name)
		}
		for _, m := range found {
			plain := m
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				plain = strings.TrimSuffix(plain, suffix)
			}
			if !known[m] && !known[plain] {
				t.Errorf("%s: there is no metric %s", name, m)
			}
		}
	}
}

func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("grafana/eventpusher.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil || len(board.Panels) < 10 {
		t.Fatalf("%d panels, %v", len(board.Panels), err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			rules := "groups: [{name: x, rules: [{record: x, expr: " + string(quoted(t, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))) + "}]}]"
			promtool(t, rules, "check", "rules")
		}
	}
}

func quoted(t *testing.T, s string) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// promtool runs it with a file.
func promtool(t *testing.T, file string, args ...string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.yml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", append(args, name)...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s\n%s", args, err, out, file)
	}
}

func TestAlerts(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", "eventpusher.rules.yml"}, {"test", "rules", "eventpusher.rules.test.yml"}, {"check", "config", "prometheus.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// service is one of compose.yaml.
type service struct {
	Image, User string
	Command     []string
	Environment map[string]string
	Volumes     []string
	ReadOnly    bool `yaml:"read_only"`
}

func readCompose(t *testing.T) (services map[string]service) {
	t.Helper()
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]service
		Volumes  map[string]any
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := file.Volumes[from]; named {
				continue
			}
			if _, err := os.Stat(filepath.Join("compose", from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	return file.Services
}

// parsed reads a configuration as the program does, with variables of its environment, and
// reports whatever keeps it from starting.
func parsed(t *testing.T, name string, text []byte, env map[string]string) {
	t.Helper()
	var list []string
	for key := range env {
		if strings.HasPrefix(key, "EVENTPUSHER_") {
			list = append(list, key+"=0123456789abcdef0123456789abcdef")
		}
	}
	cfg, problems := config.Parse(text, list, t.TempDir())
	if cfg == nil {
		t.Errorf("%s: %v", name, problems)
	}
}

func TestCompose(t *testing.T) {
	services := readCompose(t)
	text, err := os.ReadFile("compose/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	parsed(t, "compose/config.toml", text, services["eventpusher"].Environment)
	env, err := os.ReadFile("compose/example.env")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllStringSubmatch(string(whole), -1) {
		if !strings.Contains(string(env), "\n"+m[1]+"=") {
			t.Errorf("example.env does not have %s", m[1])
		}
	}
	if !services["eventpusher"].ReadOnly || services["feed"].Command[0] != "feed" {
		t.Errorf("%+v", services)
	}
}

func TestKubernetes(t *testing.T) {
	text, err := os.ReadFile("kubernetes/eventpusher.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o struct {
			Kind string
			Data map[string]string
			Spec struct {
				Template struct {
					Spec struct {
						SecurityContext struct {
							RunAsNonRoot bool `yaml:"runAsNonRoot"`
						} `yaml:"securityContext"`
						Containers []struct {
							Env           []struct{ Name string }
							LivenessProbe struct {
								HTTPGet struct{ Path string } `yaml:"httpGet"`
							} `yaml:"livenessProbe"`
							ReadinessProbe struct {
								HTTPGet struct{ Path string } `yaml:"httpGet"`
							} `yaml:"readinessProbe"`
							SecurityContext struct {
								ReadOnly bool `yaml:"readOnlyRootFilesystem"`
							} `yaml:"securityContext"`
						}
					}
				}
			}
		}
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, o.Kind)
		if o.Kind == "ConfigMap" {
			parsed(t, "the ConfigMap", []byte(o.Data["config.toml"]), map[string]string{"EVENTPUSHER_COMPONENT_SECRET": "", "EVENTPUSHER_ADMIN_TOKEN": ""})
		}
		if o.Kind != "StatefulSet" {
			continue
		}
		pod := o.Spec.Template.Spec
		c := pod.Containers[0]
		if !pod.SecurityContext.RunAsNonRoot || !c.SecurityContext.ReadOnly || c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" || len(c.Env) != 2 {
			t.Errorf("%+v", pod)
		}
	}
	if want := []string{"Secret", "ConfigMap", "Service", "StatefulSet"}; !slices.Equal(kinds, want) {
		t.Errorf("kinds %q", kinds)
	}
}
