package schema

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// formats are those of OpenAPI's registry that JSON Schema does not have, and that
// can be wrong.
var formats = []*jsonschema.Format{
	{Name: "int32", Validate: integerWithin(32)},
	{Name: "int64", Validate: integerWithin(64)},
	{Name: "byte", Validate: func(v any) error {
		if s, ok := v.(string); ok {
			if _, err := base64.StdEncoding.DecodeString(s); err != nil {
				return errors.New("not base64")
			}
		}
		return nil
	}},
}

func integerWithin(bits uint) func(any) error {
	limit := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return func(v any) error {
		var n *big.Rat
		switch v := v.(type) {
		case *Value:
			if small, ok := v.small(); ok && (bits == 64 || small == int64(int32(small))) {
				return nil
			}
			n = v.rat()
		case json.Number: // when the library asks
			n, _ = new(big.Rat).SetString(string(v))
		}
		switch {
		case n == nil:
			return nil
		case !n.IsInt():
			return errors.New("not an integer")
		case n.Num().Cmp(limit) >= 0 || n.Num().CmpAbs(limit) > 0:
			return errors.New("out of range")
		}
		return nil
	}
}
