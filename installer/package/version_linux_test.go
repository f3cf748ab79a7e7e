package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVersion asks installer/tools/version in repositories that are made for it.
func TestVersion(t *testing.T) {
	needTool(t, "git", "git")
	script := mustRead(t, filepath.Join(top(t), "installer", "tools", "version"))
	attributes := mustRead(t, filepath.Join(top(t), ".gitattributes"))
	repository := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(repository, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(dir string, env string, command ...string) string {
		t.Helper()
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TZ=Asia/Tokyo",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@test",
			"GIT_AUTHOR_DATE=2026-03-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-03-01T12:30:59+02:00"}, strings.Fields(env)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	is := func(dir, env, what, want string) {
		t.Helper()
		if got := run(dir, env, dir+"/installer/tools/version", what); got != want {
			t.Errorf("version %s: got %q, want %q", what, got, want)
		}
	}
	archive := func() string {
		dir := t.TempDir()
		run(repository, "", "sh", "-c", `git archive HEAD | tar -x -C "$0"`, dir)
		return dir
	}
	put("installer/tools/version", script)
	put(".gitattributes", attributes)

	is(repository, "", "number", "0.1.0~pre19800101000000") // nothing is known
	is(repository, "", "commit", "unknown")
	run(repository, "", "git", "init", "-q")
	run(repository, "", "git", "add", "-A")
	run(repository, "", "git", "commit", "-qm", "one")
	is(repository, "", "number", "0.1.0~pre20260301103059")
	is(repository, "", "apk", "0.1.0_pre20260301103059")
	is(repository, "", "date", "2026-03-01T10:30:59Z")
	is(repository, "", "commit", run(repository, "", "git", "rev-parse", "HEAD"))
	is(archive(), "", "number", "0.1.0~pre20260301103059")
	is(archive(), "", "commit", run(repository, "", "git", "rev-parse", "HEAD"))

	run(repository, "", "git", "tag", "v1.2.3")
	is(repository, "", "number", "1.2.3")
	is(archive(), "", "number", "1.2.3")
	put("file", "")
	run(repository, "", "git", "add", "-A")
	is(repository, "", "number", "1.2.3+dirty")
	run(repository, "", "git", "commit", "-qm", "two")
	is(repository, "", "number", "1.2.3+git20260301103059")
	is(repository, "", "apk", "1.2.3_git20260301103059")
	is(archive(), "", "number", "1.2.3+git20260301103059")
	is(repository, "VERSION=7 SOURCE_DATE_EPOCH=0 COMMIT=abc", "ldflags",
		"-X batchwarden/daemon/version.Number=7 -X batchwarden/daemon/version.Commit=abc -X batchwarden/daemon/version.Date=1970-01-01T00:00:00Z")
}
