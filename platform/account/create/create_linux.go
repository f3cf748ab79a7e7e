package create

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"batchwarden/platform/account"
)

func makeAll(ctx context.Context, entries []Entry) error {
	missing, err := absent(entries)
	if err != nil || len(missing) == 0 {
		return err
	}
	err = run(ctx, text(missing), "systemd-sysusers", "-")
	if !errors.Is(err, errMissing) {
		return err
	}
	for _, e := range missing {
		if err := add(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func add(ctx context.Context, e Entry) error {
	_, err := account.GroupByName(e.Name)
	switch {
	case errors.Is(err, account.ErrMissing):
		if err := run(ctx, "", "groupadd", "--system", e.Name); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("create: %w", err)
	}
	if !e.User {
		return nil
	}
	return run(ctx, "", "useradd", "--system", "--no-log-init", "--no-create-home", "--gid", e.Name,
		"--comment", e.Comment, "--home-dir", e.Home, "--shell", e.Shell, e.Name)
}

// absent are the entries that this host does not have.
func absent(entries []Entry) (missing []Entry, err error) {
	for _, e := range entries {
		if e.User {
			_, err = account.System().Fresh(e.Name)
		} else {
			_, err = account.GroupByName(e.Name)
		}
		switch {
		case errors.Is(err, account.ErrMissing):
			missing = append(missing, e)
		case err != nil:
			return nil, fmt.Errorf("create: %w", err)
		}
	}
	return missing, nil
}

func removeAll(ctx context.Context, entries []Entry) error {
	var errs []error
	for _, e := range entries {
		if e.User {
			if _, err := account.System().Fresh(e.Name); err == nil {
				errs = append(errs, run(ctx, "", "userdel", e.Name))
			} else if !errors.Is(err, account.ErrMissing) {
				errs = append(errs, fmt.Errorf("create: %w", err))
			}
		}
		if _, err := account.GroupByName(e.Name); err == nil { // userdel may have taken it along
			errs = append(errs, run(ctx, "", "groupdel", e.Name))
		} else if !errors.Is(err, account.ErrMissing) {
			errs = append(errs, fmt.Errorf("create: %w", err))
		}
	}
	return errors.Join(errs...)
}

// run runs one of the system's programs, with this on its standard input.
func run(ctx context.Context, in, name string, args ...string) error {
	path, err := find(name)
	if err != nil {
		return fmt.Errorf("create: %s %w", name, err)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = strings.NewReader(in), &said, &said, time.Second
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = errors.New("it did not end in time")
	}
	if err != nil {
		return fmt.Errorf("create: %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// find looks where such programs are too: a caller's PATH may not lead to them.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errMissing
}

// text is the sysusers.d(5) file of the entries.
func text(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		if e.User {
			fmt.Fprintf(&b, "u %s - %q %s %s\n", e.Name, e.Comment, e.Home, e.Shell)
		} else {
			fmt.Fprintf(&b, "g %s -\n", e.Name)
		}
	}
	return b.String()
}

// errMissing reports that a program is not on this machine.
var errMissing = errors.New("is not on this machine")
