package facts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnitsLeaveValuesOut(t *testing.T) {
	dir := t.TempDir()
	before := unitDirs
	unitDirs = []string{dir}
	defer func() { unitDirs = before }()
	for name, text := range map[string]string{
		"x.service":          "[Service]\nExecStart=/x\nEnvironment=A=canary-1 \\\n  B=canary-2\nUser=x\n",
		"x.service.d/a.conf": "[Service]\nSetCredential=k:canary-3\n",
		"y.service":          "canary-4\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	list := Units("x.service", "none.service")
	var all strings.Builder
	for _, f := range list {
		all.WriteString(f.Text)
	}
	if len(list) != 2 || strings.Contains(all.String(), "canary") || !strings.Contains(all.String(), "User=x") || strings.Count(all.String(), "=(left out)") != 2 {
		t.Errorf("got %d files: %s", len(list), &all)
	}
}

func TestSystemAndProcesses(t *testing.T) {
	for _, f := range System() {
		if strings.HasSuffix(f.Name, "osrelease") && (f.Err != nil || f.Text == "") {
			t.Errorf("%+v", f)
		}
	}
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	list := Processes(strings.TrimSpace(string(self)))
	if len(list) < 3 || list[0].Err != nil || !strings.Contains(list[0].Text, "Uid:") {
		t.Errorf("this process is not among %d facts", len(list))
	}
}

func TestListHasNoContent(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/key", []byte("canary"), 0o400); err != nil {
		t.Fatal(err)
	}
	got := List(dir, 10)
	if !strings.Contains(got, "-r--------") || !strings.Contains(got, dir+"/key") || strings.Contains(got, "canary") {
		t.Errorf("got %s", got)
	}
	if got := List(dir, 1); !strings.Contains(got, "more than these 1") {
		t.Errorf("got %s", got)
	}
	if got := List(dir+"/none", 9); !strings.Contains(got, "no such file") {
		t.Errorf("got %s", got)
	}
}

func TestJournalSaysWhyNot(t *testing.T) {
	if text, err := Journal(context.Background(), 5, "batchwarden-no-such-unit.service"); err == nil || text != "" {
		t.Errorf("got %q, %v", text, err)
	}
	before := journalctl
	journalctl = []string{"/nonexistent/journalctl"}
	defer func() { journalctl = before }()
	if _, err := Journal(context.Background(), 5, "x"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
