package daemon_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/platform/memscan"
)

// unpacked are the files of a support bundle by name, as they lie below the directory that is returned too.
func unpacked(t *testing.T, bundle string) (files map[string]string, dir string) {
	t.Helper()
	f, err := os.Open(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files, dir = map[string]string{}, t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, dir
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, "batchwarden-support/")
		files[name] = string(text)
		path := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSupportBundle makes bundles of a service that has been used, and looks in them for every secret that is anywhere
// on the host, in every form; and for the users' names where they are not wanted.
func TestSupportBundle(t *testing.T) {
	const named = `CORP\jo doe`
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		return strings.Replace(yaml, "audit: {", "audit: {argv: true, ", 1) +
			"log: {level: debug}\n"
	}})
	argv := "argv" + rand.Text()
	environ := "env" + rand.Text()
	for _, user := range []string{testbed.User, named} {
		if _, err := b.Call(b.Accounts.LSAM, http.MethodPost, "/v1/jobs", map[string]any{
			"id": "job-" + rand.Text(), "realm": testbed.Realm, "subject": map[string]string{"user": user}, "batch_user": "payroll",
			"command": []string{"/bin/echo", argv}, "env": map[string]string{"NOTE": environ},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.CLI(b.Accounts.LSAM, "retrieve", "--realm", testbed.Realm, "--subject", testbed.User, "payroll"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := b.CLI(testbed.Root, "sync"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	var needles []memscan.Needle
	for _, password := range b.Passwords() {
		needles = append(needles, memscan.Needles([]byte(password))...)
	}
	for _, file := range []string{b.Etc + "/secret_id", b.State + "/key"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		needles = append(needles, memscan.Needles(bytes.TrimSpace(text))...)
	}
	needles = append(needles, memscan.Needles([]byte(b.Vault.RootToken))...)

	make := func(t *testing.T, as testbed.Account, more ...string) (map[string]string, string) {
		t.Helper()
		dir, err := os.MkdirTemp(b.Root, "support-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, int(as.UID), int(as.GID)); err != nil {
			t.Fatal(err)
		}
		file := dir + "/b.tar.gz"
		args := append([]string{"support", "--config", b.ConfigFile(), "--limits", b.LimitsFile(), "--out", file}, more...)
		r := b.CLI(as, args...)
		info, err := os.Stat(file)
		if r.Code != 0 || err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%+v, %v, %v", r, info, err)
		}
		if again := b.CLI(as, args...); again.Code != 1 || !strings.Contains(again.Err, "file exists") {
			t.Errorf("a bundle that is there was not left alone: %+v", again)
		}
		files, unpacked := unpacked(t, file)
		hits, err := memscan.ScanFiles(needles, unpacked)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hits {
			t.Errorf("a secret is in the bundle: %v", h)
		}
		return files, unpacked
	}
	has := func(t *testing.T, files map[string]string, name string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(files[name], text) {
				t.Errorf("%q is not in %s: %.400s", text, name, files[name])
			}
		}
	}

	t.Run("root", func(t *testing.T) {
		files, _ := make(t, testbed.Root)
		has(t, files, "configuration.json", b.Etc+"/secret_id")
		has(t, files, "doctor.json", `"healthy"`, `"local_vault`)
		has(t, files, "limits.json", b.Accounts.LSAM.Name)
		has(t, files, "service/status.json", `"state": "online"`)
		has(t, files, "audit.jsonl", testbed.User, `CORP\\jo doe`, argv)
		has(t, files, "directories.txt", b.State+"/key", "-r--------", b.Etc+"/secret_id")
		has(t, files, "versions.txt", b.Bin+"/batchwardend", "sha256")
		has(t, files, "README.txt", "journal.txt: ")
		if !strings.Contains(strings.Join(keys(files), " "), "processes/batchwardend-") {
			t.Errorf("the daemon's process is not in %q", keys(files))
		}
	})
	t.Run("without names", func(t *testing.T) {
		files, dir := make(t, testbed.Root, "--without-names")
		var hidden []memscan.Needle
		for _, text := range []string{argv, environ, named, `CORP\\jo doe`} {
			hidden = append(hidden, memscan.Needles([]byte(text))...)
		}
		hits, err := memscan.ScanFiles(hidden, dir)
		if err != nil || len(hits) > 0 {
			t.Errorf("left in: %v, %v", hits, err)
		}
		for name, text := range files {
			if strings.Contains(text, `"`+testbed.User+`"`) {
				t.Errorf("%s names %s", name, testbed.User)
			}
		}
		has(t, files, "audit.jsonl", `"user":"subject-1"`, `"user":"subject-2"`)
		has(t, files, "configuration.json", b.Accounts.LSAM.Name) // accounts of the host stay
	})
	t.Run("not root", func(t *testing.T) {
		files, _ := make(t, b.Accounts.Stranger)
		has(t, files, "README.txt", "limits.json: ", "audit.jsonl: ", "permission denied", "service/status.json: ")
		has(t, files, "configuration.json", b.Etc+"/secret_id")
		has(t, files, "service/whoami.json", b.Accounts.Stranger.Name)
	})
	t.Run("nobody there", func(t *testing.T) {
		if err := errors.Join(b.Daemon.Stop(), b.Launcher.Stop()); err != nil {
			t.Fatal(err)
		}
		files, _ := make(t, testbed.Root)
		has(t, files, "README.txt", "service/health.json: ")
		has(t, files, "audit.jsonl", testbed.User)
	})
}

func keys(m map[string]string) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	return list
}
