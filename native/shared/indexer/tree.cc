#include "tree.h"

#include <algorithm>

namespace caisson {

namespace {

constexpr unsigned kMaxLinks = 40;      // what the kernel follows in one path
constexpr uint32_t kMaxDepth = 1024;    // of the tree: links make it deeper than any one name
constexpr const char* kDeep = "it lies more than 1024 directories deep";

// Takes the first component off `path`.
std::string_view Take(std::string_view* path) {
  const size_t slash = std::min(path->find('/'), path->size());
  const std::string_view part = path->substr(0, slash);
  path->remove_prefix(std::min(slash + 1, path->size()));
  return part;
}

// Stands where a child was, so that those behind it are still found.
Node removed;

bool IsAufs(std::string_view name) { return name.substr(0, 8) == ".wh..wh."; }

}  // namespace

size_t ChildTable::HashOf(const Node* parent, std::string_view name) {
  const size_t folder = std::hash<const void*>()(parent);
  return std::hash<std::string_view>()(name) ^ (folder >> 4) * 0x9e3779b97f4a7c15;
}

Node* ChildTable::Find(const Node* parent, std::string_view name) const {
  if (slots_.empty()) return nullptr;
  const size_t mask = slots_.size() - 1;
  for (size_t at = HashOf(parent, name) & mask;; at = (at + 1) & mask) {
    Node* node = slots_[at];
    if (node == nullptr) return nullptr;
    if (node != &removed && node->parent == parent && node->name == name) return node;
  }
}

void ChildTable::Add(Node* node) {
  if (filled_ >= slots_.size() / 4 * 3) Grow();
  Place(node);
  filled_++;
}

void ChildTable::Remove(const Node* node) {
  const size_t mask = slots_.size() - 1;
  for (size_t at = HashOf(node->parent, node->name) & mask; slots_[at] != nullptr; at = (at + 1) & mask) {
    if (slots_[at] != node) continue;
    slots_[at] = &removed;
    return;
  }
}

void ChildTable::Grow() {
  std::vector<Node*> before(std::max<size_t>(1024, 2 * slots_.size()), nullptr);
  before.swap(slots_);
  filled_ = 0;
  for (Node* node : before) {
    if (node == nullptr || node == &removed) continue;
    Place(node);
    filled_++;
  }
}

void ChildTable::Place(Node* node) {
  const size_t mask = slots_.size() - 1;
  size_t at = HashOf(node->parent, node->name) & mask;
  while (slots_[at] != nullptr) at = (at + 1) & mask;
  slots_[at] = node;
}

ImageTree::ImageTree() {
  inodes_.emplace_back();
  nodes_.emplace_back();
  root_ = &nodes_.back();
  root_->parent = root_;
  root_->inode = &inodes_.back();
}

const char* ImageTree::Apply(CatalogueReader* layer, uint16_t number, std::string* entry) {
  // Whiteouts are for lower layers, wherever they stand in the archive.
  EntryView view;
  for (const bool hiding : {true, false}) {
    if (hiding && !layer->has_whiteouts()) continue;
    layer->Rewind();
    while (layer->Next(&view)) {
      const bool hides = view.type == EntryType::kWhiteout || view.type == EntryType::kOpaque;
      if (hides != hiding) continue;
      const char* problem = !Sane(view.path) ? "its name is malformed" : hides ? Hide(view) : Put(view, number);
      if (problem == nullptr) continue;
      *entry = view.path;
      return problem;
    }
    if (layer->failed()) return "the layer's catalogue is malformed";
  }
  for (Node* node : passing_) {
    if (children_.Find(node->parent, node->name) == node) Remove(node);
  }
  passing_.clear();
  return nullptr;
}

bool ImageTree::Sane(std::string_view path) {
  while (!path.empty()) {
    const std::string_view part = Take(&path);
    if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
    if (part.find('\0') != std::string_view::npos) return false;
  }
  return true;
}

const char* ImageTree::Hide(const EntryView& entry) {
  Node* folder = nullptr;
  if (entry.type == EntryType::kOpaque) {
    unsigned links = 0;
    if (const char* problem = Walk(root_, entry.path, false, &links, &folder)) return problem;
    while (folder != nullptr && folder->first != nullptr) Remove(folder->first);
    return nullptr;
  }
  std::string_view name;
  if (const char* problem = Folder(entry.path, false, &folder, &name)) return problem;
  Node* node = folder == nullptr ? nullptr : children_.Find(folder, name);
  if (node != nullptr) Remove(node);
  return nullptr;
}

const char* ImageTree::Put(const EntryView& entry, uint16_t number) {
  if (entry.path.empty()) {
    if (entry.type != EntryType::kDirectory) return "the root can only be a directory";
    Describe(entry, number, root_->inode);
    return nullptr;
  }
  Node* folder = nullptr;
  std::string_view name;
  if (const char* problem = Folder(entry.path, true, &folder, &name)) return problem;
  if (entry.type == EntryType::kSymlink && (entry.link.empty() || entry.link.size() > 4096)) {
    return "its link target is malformed";
  }
  if (entry.type == EntryType::kHardLink) return Link(folder, name, entry.link);
  Node* node = children_.Find(folder, name);
  if (node != nullptr && entry.type == EntryType::kDirectory && node->inode->type == EntryType::kDirectory) {
    Describe(entry, number, node->inode);
    return nullptr;
  }
  if (node != nullptr) Remove(node);
  if (const char* problem = Add(folder, name, &node)) return problem;
  inodes_.emplace_back();
  node->inode = &inodes_.back();
  Describe(entry, number, node->inode);
  return nullptr;
}

// Relative to the root, through links in the folders above it but not through the target itself, of any layer so far.
const char* ImageTree::Link(Node* parent, std::string_view name, std::string_view target) {
  if (target.empty() || !Sane(target)) return "its link target is malformed";
  Node* folder = nullptr;
  std::string_view base;
  if (const char* problem = Folder(target, false, &folder, &base)) return problem;
  Node* found = folder == nullptr ? nullptr : children_.Find(folder, base);
  if (found == nullptr) return "it is a hard link to what neither this layer nor one below it has";
  if (found->inode->type == EntryType::kDirectory) return "it is a hard link to a directory";
  Inode* inode = found->inode;
  Node* node = children_.Find(parent, name);
  if (node != nullptr && node->inode == inode) return nullptr;
  if (node != nullptr) Remove(node);
  if (const char* problem = Add(parent, name, &node)) return problem;
  node->inode = inode;
  return nullptr;
}

const char* ImageTree::Folder(std::string_view path, bool make, Node** folder, std::string_view* name) {
  const size_t slash = path.rfind('/');
  *name = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
  unsigned links = 0;
  return Walk(root_, path.substr(0, slash == std::string_view::npos ? 0 : slash), make, &links, folder);
}

// As a process would whose root this tree is: links lead within it, and ".." above it stays there.
const char* ImageTree::Walk(Node* from, std::string_view path, bool make, unsigned* links, Node** end) {
  *end = nullptr;
  Node* at = from;
  while (!path.empty()) {
    const std::string_view part = Take(&path);
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      at = at->parent;
      continue;
    }
    Node* node = children_.Find(at, part);
    if (node == nullptr) {
      if (!make) return nullptr;
      if (part.size() > 255) return "a component of a link's target is longer than 255 bytes";
      if (const char* problem = Add(at, part, &node)) return problem;
      inodes_.emplace_back();
      node->inode = &inodes_.back();
    }
    if (node->inode->type == EntryType::kSymlink) {
      if (++*links > kMaxLinks) return "more than 40 symbolic links lie on the way to it";
      const std::string_view target = node->inode->link;
      Node* reached = nullptr;
      const char* problem = Walk(target[0] == '/' ? root_ : at, target, make, links, &reached);
      if (problem != nullptr || reached == nullptr) return problem;
      at = reached;
    } else if (node->inode->type == EntryType::kDirectory) {
      at = node;
    } else {
      return make ? "what should be a directory above it is none" : nullptr;
    }
  }
  *end = at;
  return nullptr;
}

const char* ImageTree::Add(Node* parent, std::string_view name, Node** node) {
  if (nodes_.size() >= kMaxNodes) return "more than 2000000 entries";
  if (parent->depth >= kMaxDepth) return kDeep;
  nodes_.emplace_back();
  Node* made = &nodes_.back();
  made->name = name;
  made->parent = parent;
  made->depth = parent->depth + 1;
  made->next = parent->first;
  if (parent->first != nullptr) parent->first->previous = made;
  parent->first = made;
  children_.Add(made);
  if (IsAufs(name)) passing_.push_back(made);
  *node = made;
  return nullptr;
}

// What lies below a removed directory can no longer be reached, whatever the table of children still has of it: no
// node is ever used again.
void ImageTree::Remove(Node* node) {
  children_.Remove(node);
  if (node->previous != nullptr) node->previous->next = node->next;
  if (node->next != nullptr) node->next->previous = node->previous;
  if (node->parent->first == node) node->parent->first = node->next;
}

void ImageTree::Describe(const EntryView& entry, uint16_t number, Inode* inode) {
  *inode = {};
  inode->type = entry.type;
  // Linux knows no other mode for symbolic links.
  inode->mode = entry.type == EntryType::kSymlink ? 0777 : entry.mode;
  inode->uid = entry.uid;
  inode->gid = entry.gid;
  inode->mtime = entry.mtime;
  inode->mtime_ns = entry.mtime_ns;
  inode->major = entry.major;
  inode->minor = entry.minor;
  inode->link = entry.type == EntryType::kSymlink ? entry.link : std::string_view{};
  inode->size = entry.type == EntryType::kFile ? entry.size : inode->link.size();
  inode->layer = number;
  inode->xattr_count = entry.xattr_count;
  inode->extent_count = entry.extent_count;
  inode->xattrs = entry.xattrs;
  inode->extents = entry.extents;
}

}  // namespace caisson
