package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"

	"github.com/weirmesh/weir/contract/schema"
)

// contents are the media types that a body may be of; nil: nothing is said of a body.
type contents []content

// content is one media type, or a range of them.
type content struct {
	media  string // "application/json", "text/*", "*/*"
	rule   string
	schema *schema.Schema // nil: anything
	shape  *shape
}

func (c *compiler) contents(n node, w way) contents {
	of, ok := n.child("content")
	if !ok {
		return nil
	}
	all := contents{}
	for _, media := range names(of.fields) {
		at, _ := of.child(media)
		kind, _, err := mime.ParseMediaType(media)
		if err != nil {
			c.note(at.pointer, "it is no media type")
			continue
		}
		one := content{media: kind, rule: "#" + at.pointer}
		if _, ok := at.fields["schema"]; ok {
			one.schema = c.schema(at.pointer+"/schema", w)
			if !isJSON(kind) { // which says itself what is what
				one.shape = c.shape(at.fields["schema"], shapeLevels)
			}
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b content) int { return strings.Count(a.media, "*") - strings.Count(b.media, "*") }) // exact ones first
	return all
}

// find finds what a media type falls under.
func (all contents) find(media string) *content {
	for i, c := range all {
		kind, isRange := strings.CutSuffix(c.media, "*")
		if c.media == media || c.media == "*/*" || isRange && strings.HasPrefix(media, kind) {
			return &all[i]
		}
	}
	return nil
}

func (all contents) String() string {
	var media []string
	for _, c := range all {
		media = append(media, c.media)
	}
	return strings.Join(media, ", ")
}

// Bounds of forms, which are read as values.
const (
	maxFields   = 1000
	maxFormText = 1 << 20
)

// appendForm writes a form as the JSON object that it stands for (OpenAPI, "Encoding
// Object"): names that are there more often are arrays, files are strings.
func (c *content) appendForm(b []byte, is media, body []byte) ([]byte, error) {
	values := url.Values{}
	var err error
	if is.kind == "multipart/form-data" {
		values, err = readParts(is.attributes["boundary"], body)
	} else if bytes.Count(body, []byte("&")) >= maxFields {
		err = fmt.Errorf("a form has more than %d fields", maxFields)
	} else if values, err = url.ParseQuery(string(body)); err != nil {
		err = errors.New("it is no form")
	}
	if err != nil {
		return nil, err
	}
	b = append(b, '{')
	for i, name := range names(values) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, name), ':')
		property, texts := c.shape.property(name), values[name]
		if property.is("array") || len(texts) > 1 {
			b = property.appendList(b, texts)
		} else if property.is("object") && len(texts[0]) > 0 && texts[0][0] == '{' {
			b = append(b, texts[0]...) // JSON is what an object is encoded as there
		} else {
			b = property.appendJSON(b, texts[0])
		}
	}
	return append(b, '}'), nil
}

func readParts(boundary string, body []byte) (url.Values, error) {
	if boundary == "" {
		return nil, errors.New("its boundary is missing")
	}
	values := url.Values{}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxFields {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return values, nil
		}
		if err != nil {
			return nil, errors.New("it is no form of parts")
		}
		text, err := io.ReadAll(io.LimitReader(part, maxFormText))
		if err != nil {
			return nil, errors.New("it is no form of parts")
		}
		if part.FileName() != "" {
			text = nil // what a file is like is not looked at
		}
		values.Add(part.FormName(), string(text))
	}
	return nil, fmt.Errorf("a form has more than %d fields", maxFields)
}
