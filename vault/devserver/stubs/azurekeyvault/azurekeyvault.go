// Package azurekeyvault satisfies the server's imports in place of a cloud's key service,
// whose client would be most of this program's size. Configuring it fails.
package azurekeyvault

import (
	"context"
	"errors"

	wrapping "github.com/openbao/go-kms-wrapping/v2"
)

type Wrapper struct{ wrapping.Wrapper }

func NewWrapper() *Wrapper { return new(Wrapper) }

func (*Wrapper) SetConfig(context.Context, ...wrapping.Option) (*wrapping.WrapperConfig, error) {
	return nil, errors.New("azurekeyvault: left out of the test server")
}
