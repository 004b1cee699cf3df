package com.bluedata.hadoop.bdfs;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.HashSet;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.ChecksumFileSystem;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.security.AccessControlException;
import org.apache.hadoop.util.Progressable;

/**
 * NOT HPE's class: a stand-in of its name, so that everything between Python and Hadoop's FileSystem can be tried. The
 * system property (or environment variable) BDFS_TEST_TAPS is "Tap=folder or URL,..."; words before the target, each
 * with a colon, make the tap a worse one:
 * readonly: refuses to write, as a tenant's storage may. refusing: does so with an exception that has no errno.
 * forbidden: refuses everything for lack of permission. down: answers everything with an IOException.
 * posix: renames over what is there. Else rename refuses a taken name in one step, as HDFS does.
 */
public class Bdfs extends FileSystem {
  private static final Set<String> WORDS = Set.of("readonly", "refusing", "forbidden", "down", "posix");
  private URI uri;
  private Path base;
  private FileSystem below;
  private final Set<String> traits = new HashSet<>();
  private Path working = new Path("/");

  @Override
  public String getScheme() {
    return "dtap";
  }

  @Override
  public void initialize(URI name, Configuration settings) throws IOException {
    super.initialize(name, settings);
    uri = URI.create("dtap://" + name.getAuthority());
    String taps = System.getProperty("BDFS_TEST_TAPS", System.getenv("BDFS_TEST_TAPS"));
    for (String entry : (taps == null ? "" : taps).split(",")) {
      String[] pair = entry.split("=", 2);
      if (pair[0].equals(name.getAuthority())) {
        String target = pair[1];
        for (String word = before(target); WORDS.contains(word); word = before(target)) {
          traits.add(word);
          target = target.substring(word.length() + 1);
        }
        base = new Path(target.contains("://") ? target : "file://" + target);
        below = base.getFileSystem(settings);
        if (below instanceof ChecksumFileSystem) { // a plain folder, without .crc files
          below = ((ChecksumFileSystem) below).getRawFileSystem();
        }
        return;
      }
    }
    throw new IOException("no DataTap named " + name.getAuthority() + " in this tenant");
  }

  private static String before(String target) {
    return target.substring(0, Math.max(0, target.indexOf(':')));
  }

  private Path down(Path path) throws IOException {
    if (traits.contains("forbidden")) {
      throw new AccessControlException("Permission denied: " + path);
    }
    if (traits.contains("down")) {
      throw new IOException("the sidecar does not answer");
    }
    String inside = path.isAbsolute() ? path.toUri().getPath() : working.toUri().getPath() + "/" + path;
    return new Path(base + "/" + inside);
  }

  private FileStatus up(FileStatus found) {
    String inside = found.getPath().toUri().getPath().substring(base.toUri().getPath().length());
    return new FileStatus(
        found.getLen(), found.isDirectory(), found.getReplication(), found.getBlockSize(), found.getModificationTime(),
        found.getAccessTime(), found.getPermission(), found.getOwner(), found.getGroup(),
        new Path(uri + (inside.startsWith("/") ? "" : "/") + inside));
  }

  private void writing(Path path) throws IOException {
    if (traits.contains("readonly")) {
      throw new AccessControlException("Permission denied: " + path + " is read-only");
    }
    if (traits.contains("refusing")) {
      throw new IOException("bdfs error 30");
    }
  }

  @Override
  public URI getUri() {
    return uri;
  }

  @Override
  public FSDataInputStream open(Path path, int buffer) throws IOException {
    return below.open(down(path), buffer);
  }

  @Override
  public FSDataOutputStream create(
      Path path, FsPermission permission, boolean overwrite, int buffer, short copies, long block, Progressable progress)
      throws IOException {
    writing(path);
    return below.create(down(path), permission, overwrite, buffer, copies, block, progress);
  }

  @Override
  public FSDataOutputStream append(Path path, int buffer, Progressable progress) throws IOException {
    writing(path);
    return below.append(down(path), buffer, progress);
  }

  @Override
  public boolean rename(Path source, Path target) throws IOException {
    writing(source);
    if (below instanceof RawLocalFileSystem && !traits.contains("posix") && below.getFileStatus(down(source)).isFile()) {
      java.nio.file.Path from = Paths.get(down(source).toUri().getPath());
      try {
        Files.createLink(Paths.get(down(target).toUri().getPath()), from);
      } catch (IOException taken) {
        return false;
      }
      Files.delete(from);
      return true;
    }
    return below.rename(down(source), down(target));
  }

  @Override
  public boolean delete(Path path, boolean all) throws IOException {
    writing(path);
    return below.delete(down(path), all);
  }

  @Override
  public FileStatus[] listStatus(Path path) throws FileNotFoundException, IOException {
    FileStatus[] found = below.listStatus(down(path));
    for (int i = 0; i < found.length; i++) {
      found[i] = up(found[i]);
    }
    return found;
  }

  @Override
  public void setWorkingDirectory(Path path) {
    working = path;
  }

  @Override
  public Path getWorkingDirectory() {
    return working;
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    writing(path);
    return below.mkdirs(down(path), permission);
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    return up(below.getFileStatus(down(path)));
  }
}
