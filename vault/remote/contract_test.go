package remote_test

import (
	"context"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/remote/remotetest"
)

func TestContract(t *testing.T) {
	remotetest.Run(t, func(t *testing.T, c remote.Config) remotetest.Source {
		s, err := remote.New(c)
		if err != nil {
			return unable{err}
		}
		return s
	})
}

// unable reports what New found, as the worker does.
type unable struct{ err error }

func (u unable) Sync(context.Context, *errand.Keys, *errand.Task, remote.Out) (*errand.Report, error) {
	return remote.Unable(u.err), nil
}
