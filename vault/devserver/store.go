package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/sdk/v2/physical"
	"github.com/openbao/openbao/sdk/v2/physical/file"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"
)

// maxEntry is what a raft-backed server takes in one entry unless told otherwise.
const maxEntry = 1 << 20

// openStore keeps everything below dir, or in memory when dir is empty.
func openStore(dir string, log hclog.Logger) (physical.Backend, error) {
	var b physical.Backend
	var err error
	if dir == "" {
		b, err = inmem.NewInmem(nil, log)
	} else {
		b, err = file.NewFileBackend(map[string]string{"path": dir}, log)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return bounded{b}, nil
}

// bounded refuses what a production server on integrated storage would refuse.
// It has the plain Backend's methods only: the in-memory store's transactions
// copy its whole tree, and without the interface the core does not begin any.
type bounded struct{ physical.Backend }

func (b bounded) Put(ctx context.Context, e *physical.Entry) error {
	if n := len(e.Key) + len(e.Value); n > maxEntry {
		return fmt.Errorf("%s; got %d bytes, max: %d bytes", physical.ErrValueTooLarge, n, maxEntry)
	}
	return b.Backend.Put(ctx, e)
}
