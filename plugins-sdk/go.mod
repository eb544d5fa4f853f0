module github.com/weirmesh/weir/plugins-sdk

go 1.26.0
