import java.io.BufferedReader;
import java.io.File;
import java.io.FileWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.net.InetAddress;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.protocol.HdfsConstants;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.datanode.DataNodeFaultInjector;
import org.apache.hadoop.hdfs.server.namenode.AuditLogger;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.metrics2.lib.DefaultMetricsSystem;

/**
 * A NameNode and a DataNode in this JVM, on loopback, until standard input closes. Arguments: a folder, then KEY=VALUE
 * settings; fs.defaultFS and those of the DataNode may name another address. Prints READY and the NameNode's port. Each
 * line of input is a command that is answered by OK or a reason: "stop" and "start" (the DataNode, which keeps its
 * port), "quota PATH BYTES", "leave" (safe mode). FOLDER/calls.log gets one line for each file operation that the
 * NameNode was asked for.
 */
public class MiniHdfs {
  private static PrintWriter calls;

  /** The NameNode makes one of these by its name. */
  public static class Calls implements AuditLogger {
    @Override
    public void initialize(Configuration conf) {}

    @Override
    public void logAuditEvent(
        boolean ok, String user, InetAddress from, String command, String source, String target, FileStatus status) {
      synchronized (Calls.class) {
        calls.println(command + "\t" + source + "\t" + target);
        calls.flush();
      }
    }
  }

  /**
   * The DataNode reports a block to the NameNode while it tells the client that all is written. Where the client closes
   * the file before the report has come, which on loopback is nearly always, it asks again half a second later.
   */
  private static class ReportFirst extends DataNodeFaultInjector {
    @Override
    public void delaySendingAckToUpstream(String client) throws IOException {
      try {
        Thread.sleep(5);
      } catch (InterruptedException ended) {
        Thread.currentThread().interrupt();
      }
    }
  }

  public static void main(String[] arguments) {
    try {
      run(arguments);
    } catch (Throwable failure) {
      failure.printStackTrace();
      Runtime.getRuntime().halt(1); // threads of a half-started NameNode would keep this process alive
    }
  }

  private static void run(String[] arguments) throws Exception {
    File folder = new File(arguments[0]).getCanonicalFile();
    folder.mkdirs();
    calls = new PrintWriter(new FileWriter(new File(folder, "calls.log")));
    DataNodeFaultInjector.set(new ReportFirst());
    DefaultMetricsSystem.setMiniClusterMode(true); // or formatting and starting in one JVM fails on a name taken
    Configuration settings = settings(folder, arguments);
    if (!new File(folder, "nn/current/VERSION").exists()) {
      NameNode.format(settings);
    }
    NameNode names = NameNode.createNameNode(new String[0], settings);
    String host = java.net.URI.create(settings.get("fs.defaultFS")).getHost();
    settings.set("fs.defaultFS", "hdfs://" + host + ":" + names.getNameNodeAddress().getPort());
    DataNode data = DataNode.createDataNode(new String[0], settings);
    settings.set("dfs.datanode.address", host + ":" + data.getXferPort());
    wait(names, data);
    System.out.println("READY " + names.getNameNodeAddress().getPort());
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      String[] words = line.split(" ");
      try {
        if (words[0].equals("stop")) {
          data.shutdown();
        } else if (words[0].equals("start")) {
          data = DataNode.createDataNode(new String[0], settings);
          wait(names, data);
        } else if (words[0].equals("quota")) {
          DistributedFileSystem files = (DistributedFileSystem) FileSystem.get(settings);
          files.setQuota(new Path(words[1]), HdfsConstants.QUOTA_DONT_SET, Long.parseLong(words[2]));
        } else if (words[0].equals("leave")) {
          ((DistributedFileSystem) FileSystem.get(settings)).setSafeMode(HdfsConstants.SafeModeAction.SAFEMODE_LEAVE);
        } else {
          throw new IOException("no such command: " + line);
        }
        System.out.println("OK");
      } catch (Exception failure) {
        System.out.println(failure.toString().replace('\n', ' '));
      }
    }
    Runtime.getRuntime().halt(0);
  }

  private static Configuration settings(File folder, String[] arguments) {
    Configuration settings = new HdfsConfiguration();
    settings.set("fs.defaultFS", "hdfs://127.0.0.1:0");
    settings.set("hadoop.tmp.dir", folder + "/tmp");
    settings.set("dfs.namenode.name.dir", new File(folder, "nn").toURI().toString());
    settings.set("dfs.datanode.data.dir", new File(folder, "dn").toURI().toString());
    settings.set("dfs.namenode.http-address", "127.0.0.1:0");
    for (String kind : new String[] {"", ".ipc", ".http"}) {
      settings.set("dfs.datanode" + kind + ".address", "127.0.0.1:0");
    }
    settings.set("dfs.datanode.hostname", "127.0.0.1");
    settings.setBoolean("dfs.namenode.datanode.registration.ip-hostname-check", false);
    settings.setInt("dfs.replication", 1);
    settings.setInt("dfs.namenode.safemode.extension", 0);
    settings.setInt("dfs.heartbeat.interval", 1);
    settings.setBoolean("dfs.namenode.edits.noeditlogchannelflush", true);
    settings.set("hadoop.security.token.service.use_ip", "true");
    settings.set("dfs.namenode.audit.loggers", Calls.class.getName());
    for (String setting : java.util.Arrays.asList(arguments).subList(1, arguments.length)) {
      String[] pair = setting.split("=", 2);
      settings.set(pair[0], pair[1]);
    }
    return settings;
  }

  private static void wait(NameNode names, DataNode data) throws Exception {
    while (!data.isDatanodeFullyStarted()
        || names.getNamesystem().getNumLiveDataNodes() < 1
        || names.isInSafeMode()) {
      Thread.sleep(20);
    }
  }
}
