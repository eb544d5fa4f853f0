package admin

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/resource/manifest"
)

// jsonCodec writes protojson and reads what people write: the Gateway API's
// spelling of enumerations, durations such as "1h30m", resources without an
// envelope. A field that does not exist is refused: it is a misspelt one more
// often than one of a later version.
type jsonCodec struct {
	*connectproto.JSONCodec
}

func (c jsonCodec) UnmarshalRead(_ context.Context, src io.Reader, msg any) error {
	m, ok := msg.(proto.Message)
	if !ok {
		return fmt.Errorf("read JSON into %T: not a message", msg)
	}
	data, err := io.ReadAll(src)
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if len(data) == 0 {
		return errors.New("the body is empty; send {} for an empty request")
	}
	return manifest.UnmarshalJSON(data, m)
}
