//go:build !linux

package account

func standingOf(string) (Standing, error) { return Standing{}, errUnsupported }
