package manage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// properties are what show asks for.
var properties = []string{"FragmentPath", "UnitFileState", "ActiveState", "SubState", "Result", "StatusText", "MainPID",
	"ActiveEnterTimestamp", "ControlGroup", "NeedDaemonReload"}

func show(ctx context.Context, name string) (Unit, error) {
	out, err := systemctl(ctx, "show", "--timestamp=unix", "--property="+strings.Join(properties, ","), "--", name)
	if err != nil { // a systemd before 247 does not know how to tell a time
		out, err = systemctl(ctx, "show", "--property="+strings.Join(properties, ","), "--", name)
	}
	if err != nil {
		return Unit{}, err
	}
	value := map[string]string{}
	for line := range strings.Lines(out) {
		key, text, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		value[key] = text
	}
	u := Unit{
		Name: name, File: value["FragmentPath"], Enabled: value["UnitFileState"], Active: value["ActiveState"], Sub: value["SubState"],
		Result: value["Result"], Status: value["StatusText"], Cgroup: value["ControlGroup"], Stale: value["NeedDaemonReload"] == "yes",
	}
	if pid, err := strconv.Atoi(value["MainPID"]); err == nil {
		u.PID = pid
	}
	if at, err := strconv.ParseInt(strings.TrimPrefix(value["ActiveEnterTimestamp"], "@"), 10, 64); err == nil && at > 0 {
		u.Since = time.Unix(at, 0)
	}
	return u, nil
}

func control(ctx context.Context, verb string, units []string) error {
	_, err := systemctl(ctx, append([]string{verb}, units...)...)
	return err
}

// systemctl returns what systemctl wrote. It never asks anybody for a password.
func systemctl(ctx context.Context, args ...string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", slices.Concat([]string{"--no-ask-password", "--no-pager"}, args)...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &said, time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.String(), nil
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("manage: systemctl %s: %w", args[0], ErrNone)
	case ctx.Err() != nil:
		return "", fmt.Errorf("manage: systemctl %s did not end in time", strings.Join(args, " "))
	}
	return "", fmt.Errorf("manage: systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
}
